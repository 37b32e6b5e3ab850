"""`python -m ray_jobs.report ...`: the same as `animalclf report ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["report", *sys.argv[1:]])
