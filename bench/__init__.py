"""Measurements: `python -m bench.run` (`make bench`) and the endurance test `bench/soak.py` (`make soak`)."""
