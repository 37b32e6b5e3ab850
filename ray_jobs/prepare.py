"""`python -m ray_jobs.prepare ...`: the same as `animalclf prepare ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
