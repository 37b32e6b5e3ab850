"""`python -m ray_jobs.ensemble ...`: the same as `animalclf ensemble ...`, for `ray job submit`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["ensemble", *sys.argv[1:]]))
