"""Recorded values (JSON) of tests/test_golden.py, and the code that computes them."""
