"""Environment variables of the processes that train and classify, which are read when a process starts."""

PROCESS_VARIABLES = {
    # glibc: with more arenas, threads other than the first (Ray Train trains in one) map every allocation above 64 MB
    # again, regardless of mallopt (see malloc.py).
    "MALLOC_ARENA_MAX": "1",
    # libgomp: how often a thread looks for work before it sleeps; the default is 300,000 times
    # (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). Meanwhile it keeps its core from the thread that
    # it waits for, if another program takes the other core (python -m benchmarks.busy).
    "GOMP_SPINCOUNT": "5000",
}
