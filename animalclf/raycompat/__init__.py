"""Everything that uses Ray's private names, and nothing that is needed: without it the results are the same and come later.

Each patch is a function with its measured gain in its docstring and a guard (`patches.patch`). `ANIMALCLF_STOCK_RAY=1` turns all of them off;
docs/ray.md has what that costs.
"""
