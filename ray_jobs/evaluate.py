"""`python -m ray_jobs.evaluate ...`: the same as `animalclf evaluate ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
