"""Comparative runs: Ray Tune at the edge."""
