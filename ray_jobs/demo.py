"""`python -m ray_jobs.demo ...`: the same as `animalclf demo ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
