"""The command `animalclf`, also as `python -m animalclf`."""

from __future__ import annotations

import os
from typing import NoReturn


def main() -> NoReturn:
    """`cli.run_and_exit`. Ctrl-C while its modules are imported ends the process without a traceback."""
    try:
        from animalclf.cli import run_and_exit
    except KeyboardInterrupt:
        os._exit(130)  # errors.ExitCode.INTERRUPTED, which may not be imported yet
    run_and_exit()


if __name__ == "__main__":
    main()
