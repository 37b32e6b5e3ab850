"""Interrupt commands at random instants: `python -m kills --count 100 --seed 0`, on Ray `python -m kills --ray 10`."""

from __future__ import annotations

import argparse
import sys

from kills import on_ray, runner
from kills.scenarios import SCENARIOS, register_tiny_model


def main() -> int:
    names = [kind.name for kind in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "commands", nargs="*", default=names, metavar="COMMAND[=COUNT]", help=f"{', '.join(names)} (default: all)"
    )
    parser.add_argument("--count", type=int, default=100, help="kills, and full disks, of each command without =COUNT")
    parser.add_argument("--modes", nargs="+", default=["kill", "full"], help="kill, full (default: both)")
    parser.add_argument("--ray", type=int, default=0, help="kills of each real command on Ray, for each victim")
    parser.add_argument("--victims", nargs="+", default=on_ray.VICTIMS, choices=on_ray.VICTIMS, help="on Ray")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    arguments = parser.parse_args()
    faults = 0
    parts = [command.partition("=") for command in arguments.commands]
    counts = {name: int(count or arguments.count) for name, _, count in parts}
    register_tiny_model()
    for kind in SCENARIOS:
        if not counts.get(kind.name):
            continue
        with runner.Interruptions(kind) as interruptions:
            for mode in arguments.modes:
                report = interruptions.run(mode, counts[kind.name], arguments.seed, arguments.first)
                faults += show(f"{kind.name}, {mode}", arguments.seed, report)
    for kind in on_ray.SCENARIOS if arguments.ray else ():
        if kind.name in counts:
            for victim in arguments.victims:
                report = on_ray.run(kind, victim, arguments.ray, arguments.seed, arguments.first)
                faults += show(f"{kind.name} on Ray, {victim} killed", arguments.seed, report)
    return min(faults, 1)


def show(name: str, seed: int, report: runner.Report) -> int:
    for fault in report.faults:
        print(fault)
    print(f"{name}, seed {seed}: {report}", flush=True)
    return len(report.faults)


if __name__ == "__main__":
    sys.exit(main())
