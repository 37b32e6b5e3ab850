"""`python -m ray_jobs.export ...`: the same as `animalclf export ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["export", *sys.argv[1:]])
