"""`python -m ray_jobs.submit JOB ...`: submits ray_jobs/JOB.py to a cluster, shows its log and returns its exit status."""

import sys

from animalclf.submit import main

if __name__ == "__main__":
    sys.exit(main())
