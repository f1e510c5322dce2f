"""Greedy layer-wise pretraining, and the data it learns from. Stands alone: neither gradtui nor textual."""
