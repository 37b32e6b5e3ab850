"""`python -m ray_jobs.train ...`: the same as `animalclf train ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["train", *sys.argv[1:]])
