"""`python -m ray_jobs.compare ...`: the same as `animalclf compare ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["compare", *sys.argv[1:]])
