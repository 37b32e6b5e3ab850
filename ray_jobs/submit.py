"""`python -m ray_jobs.submit ...`: the same as `animalclf submit ...`."""

import sys

from animalclf.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit(["submit", *sys.argv[1:]])
