"""Arguments, commands and result files of the benchmarks."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`, whose help is a module's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the results to this file")
    return parser


def write_json(file: str | None, results: DataclassInstance | Mapping[str, object]) -> None:
    """Write the results if --json was given."""
    if file:
        content = results if isinstance(results, Mapping) else dataclasses.asdict(results)
        with open(file, "w") as sink:
            json.dump(content, sink, indent=1)


def animalclf(*arguments: str, **environment: str) -> str:
    """Standard output of an animalclf command. Ends the benchmark if it fails."""
    return run([sys.executable, "-m", "animalclf.cli", *arguments], **environment)


def run(command: list[str], **environment: str) -> str:
    """Standard output of a command, run with these environment variables. Ends the benchmark if it fails."""
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if process.returncode:
        sys.exit(f"{' '.join(command[:6])} failed:\n{process.stderr[-3000:]}")
    return process.stdout
