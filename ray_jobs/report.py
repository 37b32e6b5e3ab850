"""`python -m ray_jobs.report ...`: the same as `animalclf report ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
