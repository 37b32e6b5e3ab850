"""Benchmarks: each is one command, `python -m benchmarks.NAME`, and prints a table; `--json FILE` keeps the same figures."""
