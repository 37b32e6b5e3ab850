"""`python -m ray_jobs.demo ...`: the same as `animalclf demo ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["demo", *sys.argv[1:]])
