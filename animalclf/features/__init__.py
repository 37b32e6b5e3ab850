"""Heads fitted in closed form on the features of a frozen base. Plain NumPy and SciPy."""
