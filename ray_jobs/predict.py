"""`python -m ray_jobs.predict ...`: the same as `animalclf predict ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["predict", *sys.argv[1:]])
