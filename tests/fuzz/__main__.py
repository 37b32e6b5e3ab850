"""Fuzz the readers: `python -m fuzz images --count 100000 --seed 1`; `--only 42 --seed 1` repeats one input."""

from __future__ import annotations

import argparse
import importlib
import sys

from fuzz import runner

TARGETS = {"images": "Images", "files": "Files"}
MAX_SHOWN = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help="images, files (default: both)")
    parser.add_argument("--count", type=int, default=100_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="one input, in this process")
    arguments = parser.parse_args()
    faults = 0
    for name in arguments.targets:
        target = getattr(importlib.import_module(f"fuzz.{name}"), TARGETS[name])
        if arguments.only is None:
            report = runner.run(target, arguments.count, arguments.seed, arguments.processes)
        else:
            report = runner.run_here(target(), range(arguments.only, arguments.only + 1), arguments.seed)
        for fault in report.faults[:MAX_SHOWN]:
            print(fault)
        print(f"{name}, seed {arguments.seed}: {report}", flush=True)
        faults += len(report.faults)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
