"""The command `animalclf`, also as `python -m animalclf`."""

from __future__ import annotations

import os
from typing import NoReturn


def main() -> NoReturn:
    """`cli.run_and_exit`. Ctrl-C while its modules are imported ends the process with a line, without a traceback."""
    try:
        from animalclf.cli import run_and_exit

        run_and_exit()
    except KeyboardInterrupt:
        os.write(2, b"stopped by Ctrl-C\n")
        os._exit(130)  # errors.ExitCode.INTERRUPTED, which may not be imported yet


if __name__ == "__main__":
    main()
