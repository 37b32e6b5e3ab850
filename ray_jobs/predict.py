"""`python -m ray_jobs.predict ...`: the same as `animalclf predict ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
