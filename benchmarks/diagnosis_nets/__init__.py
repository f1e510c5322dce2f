"""The nets of `benchmarks/diagnosis.py`: sick ones and healthy ones, each made of its seed."""
