"""Versions of the three machines whose changes move numbers: the trainer and the evaluator."""

TRAINING_VERSION = 1
"""Of `bench/fit.py`, `bench/noise.py` and what the worker does to train and to measure donors."""
EVALUATION_VERSION = 3
"""Of `bench/cell.py` and what it measures with."""
SWAP_VERSION = 1
"""Of `models/swap.py` and `bench/swapping.py`."""
