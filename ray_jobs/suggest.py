"""`python -m ray_jobs.suggest ...`: the same as `animalclf suggest ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["suggest", *sys.argv[1:]])
