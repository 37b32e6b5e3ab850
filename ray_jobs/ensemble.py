"""`python -m ray_jobs.ensemble ...`: the same as `animalclf ensemble ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["ensemble", *sys.argv[1:]])
