"""The commands of `python -m pretrain`, a file each."""
