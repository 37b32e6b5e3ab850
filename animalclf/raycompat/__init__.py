"""Patches of Ray, the only code that uses Ray's private names. Without them the results are the same, only later.

Each patch is a function with its measured gain in its docstring and a guard (`patches.patch`). `ANIMALCLF_STOCK_RAY=1`
turns all of them off; docs/ray.md has the cost.
"""
