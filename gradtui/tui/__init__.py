"""What a person sees. Never imports torch."""
