"""`python -m ray_jobs.completion ...`: the same as `animalclf completion ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["completion", *sys.argv[1:]])
