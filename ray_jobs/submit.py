"""`python -m ray_jobs.submit ...`: the same as `animalclf submit ...`."""

import sys

from animalclf.cli import main

if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
