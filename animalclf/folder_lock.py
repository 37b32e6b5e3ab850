"""The lock of a folder (local or s3://) that one process at a time writes: running.json names that process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from animalclf.errors import UserError
from animalclf.rows.base import Row
from animalclf.utils import storage
from animalclf.utils.leftovers import remove_leftovers
from animalclf.utils.writable import missing_folders, remove_empty

FILE = "running.json"
SAME_PROCESS_SECONDS = 5.0  # tolerance of a process's start time: the machine's clock may be corrected in between
HOST = socket.gethostname()  # a laptop's name may change with its network, while the process holds a folder
STALE_SECONDS = 120  # without renewal, after which another machine's lock counts as left over from a crash
_threads = threading.Lock()
_locked: set[str] = set()
"""The folders that threads of this process have locked."""


@dataclass(frozen=True)
class LockHolder(Row):
    """The process that holds a folder: the content of running.json."""

    host: str
    pid: int
    renewed: float = field(metadata={"old_keys": ["time"]})
    """Seconds since 1970."""
    process_started: float = field(default=0.0, metadata={"old_keys": ["born"]})
    """Seconds since 1970."""
    made_folders: list[str] = field(default_factory=list)
    """Local folders that the lock made, from the inside."""

    @property
    def is_this_process(self) -> bool:
        return (self.host, self.pid) == (HOST, os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; on another machine, whether it renewed the lock recently."""
        if self.host == HOST:
            return _is_alive(self.pid, self.process_started)
        return time.time() - self.renewed < STALE_SECONDS


class InUseError(UserError):
    """Another running process, `holder`, holds the folder."""

    def __init__(self, root: str, holder: LockHolder) -> None:
        super().__init__(
            f"{root}: in use by process {holder.pid} on {holder.host}; wait for it, stop it, or choose another --out"
        )
        self.holder = holder


@dataclass(frozen=True)
class FolderLock:
    """The lock of the folder `root`, of this process or another one."""

    root: str

    @property
    def url(self) -> str:
        return storage.join(self.root, FILE)

    def check(self) -> None:
        """Raise InUseError if another running process holds the folder."""
        holder = self._holder()
        if holder and not holder.is_this_process and holder.is_alive:
            raise InUseError(self.root, holder)

    def acquire(self) -> None:
        """Lock the folder for this process, and remove what a killed one left half-written; call again at intervals to
        renew the lock. Raises InUseError if another running process holds it, and UserError if it cannot be written."""
        made = missing_folders(self.root)
        with _one_at_a_time(self.root):
            self.check()
            holder = self._holder()
            if holder and holder.is_this_process:
                made = holder.made_folders
            else:
                remove_leftovers(self.root)
            own = LockHolder(HOST, os.getpid(), time.time(), psutil.Process().create_time(), made)
            storage.write_json(self.url, own.to_dict(), shown=self.root)

    def release(self) -> None:
        """Unlock the folder. A local one that is empty is removed, with the folders that were made for it."""
        holder = self._holder()
        if holder and holder.is_this_process:
            storage.remove(self.url)
            if not storage.is_remote(self.root):
                remove_empty(dict.fromkeys([storage.filesystem(self.root)[1], *holder.made_folders]))

    def _holder(self) -> LockHolder | None:
        try:
            content = storage.read_json(self.url)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return LockHolder.from_dict(content, self.url)
        except UserError as error:
            raise UserError(
                f"{self.url}: not a lock file of animalclf; if no command uses this folder, remove the file"
            ) from error


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Lock the folder `root` for this thread within the block; the lock is renewed. Raises as `acquire`."""
    lock, ended = FolderLock(root), threading.Event()

    def renew() -> None:
        while not ended.wait(STALE_SECONDS / 4):
            with contextlib.suppress(UserError):  # it cannot be written now: the command will say so
                lock.acquire()

    with _once_in_this_process(lock):
        lock.acquire()
        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            lock.release()


@contextmanager
def _once_in_this_process(lock: FolderLock) -> Iterator[None]:
    """Raises InUseError while another thread is in such a block for the same folder."""
    path = storage.filesystem(lock.root)[1]
    path = path if storage.is_remote(lock.root) else os.path.realpath(path)
    with _threads:
        if path in _locked:
            raise InUseError(lock.root, LockHolder(HOST, os.getpid(), time.time()))
        _locked.add(path)
    try:
        yield
    finally:
        _locked.discard(path)


@contextmanager
def _one_at_a_time(root: str) -> Iterator[None]:
    """Within the block no other process of this machine is in this block for the same local folder, which is made."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks, or a folder that cannot be made: see below
            if not storage.is_remote(root):
                path = storage.filesystem(root)[1]
                os.makedirs(path, exist_ok=True)
                folder = os.open(path, os.O_RDONLY)
                stack.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process `pid` runs and started at `started`: its number may belong to another process by now. One
    that was killed and that its parent does not wait for, as in containers without an init, has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started) < SAME_PROCESS_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
