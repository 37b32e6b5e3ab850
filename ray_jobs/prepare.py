"""`python -m ray_jobs.prepare ...`: the same as `animalclf prepare ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["prepare", *sys.argv[1:]])
