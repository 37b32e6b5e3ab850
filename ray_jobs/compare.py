"""`python -m ray_jobs.compare ...`: the same as `animalclf compare ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
