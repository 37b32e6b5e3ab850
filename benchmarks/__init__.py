"""Benchmarks: `python -m benchmarks.NAME` prints a table, and with `--json FILE` writes the same numbers to a file."""
