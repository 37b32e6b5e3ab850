"""`python -m ray_jobs.train ...`: the same as `animalclf train ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
