"""Metrics of class probabilities, their intervals, and tests of differences. Plain NumPy."""
