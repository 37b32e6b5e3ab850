"""`python -m ray_jobs.evaluate ...`: the same as `animalclf evaluate ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["evaluate", *sys.argv[1:]])
