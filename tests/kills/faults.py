"""A fault at the n-th operation of a process on files below a folder: the process is killed by SIGKILL, or from then on
the disk is full. An operation is to open a file for writing, to write a part of it, to rename or remove it, to make a
folder."""

from __future__ import annotations

import errno
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, Literal

from animalclf.utils import storage

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events
FREEING = ("os.rename", "os.remove", "os.rmdir")  # of these, what a full disk allows


@dataclass(frozen=True)
class Fault:
    kind: Literal["kill", "full"]
    at: int
    """The number of operations before the fault."""


class Operations:
    """Counts the operations of this process below `folder`, for the rest of its life, and ends them with `fault`."""

    def __init__(self, folder: str, fault: Fault | None) -> None:
        self.folder, self.fault, self.count = f"{folder}/", fault, 0
        sys.addaudithook(self._audit)
        write = storage._ChunkedFile.write

        def counted(file: Any, data: Any, /) -> int:
            part = memoryview(data)
            if self._is_due(file.name, frees=False):
                write(file, part[: len(part) // 2])
                self._strike(file.name)
            return write(file, part)

        storage._ChunkedFile.write = counted  # type: ignore[method-assign]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if self._is_due(path, frees=event in FREEING):
            self._strike(path)

    def _is_due(self, path: Any, *, frees: bool) -> bool:
        """Count an operation. Whether the fault happens at it."""
        if not isinstance(path, str) or not path.startswith(self.folder):
            return False
        number, self.count = self.count, self.count + 1
        if self.fault is None or number < self.fault.at:
            return False
        return not (frees and self.fault.kind == "full")

    def _strike(self, path: str) -> None:
        if self.fault and self.fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
