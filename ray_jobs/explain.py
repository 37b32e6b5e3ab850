"""`python -m ray_jobs.explain ...`: the same as `animalclf explain ...`, for `ray job submit`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["explain", *sys.argv[1:]])
