"""What measures inside the training process."""
