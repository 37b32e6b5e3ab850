"""`python -m ray_jobs.labels ...`: the same as `animalclf labels ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["labels", *sys.argv[1:]])
