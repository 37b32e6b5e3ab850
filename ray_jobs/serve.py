"""`python -m ray_jobs.serve ...`: the same as `animalclf serve ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["serve", *sys.argv[1:]])
