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
from pathlib import Path

import psutil

from animalclf.errors import UserError
from animalclf.rows.base import Row
from animalclf.utils import storage
from animalclf.utils.leftovers import LOCK_FILE, remove_leftovers
from animalclf.utils.writable import missing_folders, remove_empty

FILE = LOCK_FILE
SAME_PROCESS_SECONDS = 5.0  # tolerance of a process's start time: the machine's clock may be corrected in between
HOST = socket.gethostname()  # a laptop's name may change with its network, while the process holds a folder
REMOVALS = 100  # of a folder by other processes, while it is locked: then it is not locked
STALE_SECONDS = 120  # without renewal, after which another machine's lock counts as left over from a crash
_threads = threading.Lock()
_held: dict[str, _Renewal] = {}
"""The folders that this process has locked, by their real path or URL."""


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
    start_in_boot: str = ""
    """Of the process, as of `start_in_boot`; empty where there is none."""

    @classmethod
    def this_process(cls, made_folders: list[str]) -> LockHolder:
        pid, started = os.getpid(), psutil.Process().create_time()
        return cls(HOST, pid, time.time(), started, made_folders, start_in_boot(pid))

    @property
    def is_this_process(self) -> bool:
        """Also after a change of the clock. In containers most processes have the same few numbers."""
        is_same = not self.start_in_boot or self.start_in_boot == start_in_boot(os.getpid())
        return is_same and (self.host, self.pid) == (HOST, os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; on another machine, whether it renewed the lock recently."""
        if self.host == HOST:
            return _is_alive(self.pid, self.process_started, self.start_in_boot)
        return time.time() - self.renewed < STALE_SECONDS


class InUseError(UserError):
    """Another running process, `holder`, holds the folder."""

    def __init__(self, root: str, holder: LockHolder) -> None:
        process = f"process {holder.pid} on {holder.host}; wait for it, stop it"
        user = "another call in this process; wait for it" if holder.is_this_process else process
        super().__init__(f"{root}: in use by {user}, or choose another --out")
        self.holder = holder


class LostLockError(UserError):
    """Another process, `holder` if it still holds the folder, took it, because its lock was not renewed in time."""

    def __init__(self, root: str, holder: LockHolder | None) -> None:
        by = f"process {holder.pid} on {holder.host}" if holder else "another process"
        super().__init__(
            f"{root}: taken by {by}, because this process did not renew its lock for {STALE_SECONDS} s (a suspended "
            "machine, or a storage that could not be reached); run the command again"
        )


@dataclass(frozen=True)
class FolderLock:
    """The lock of the folder `root`, of this process or another one."""

    root: str
    below: bool = False
    """Whether `acquire` removes leftovers below the folder too: those of a run, which has folders of its own."""

    @property
    def url(self) -> str:
        return storage.join(self.root, FILE)

    @property
    def _key(self) -> str:
        path = storage.filesystem(self.root)[1]
        return path if storage.is_remote(self.root) else os.path.realpath(path)

    def check(self) -> None:
        """Raise InUseError if another running process, or a call in this one, holds the folder."""
        if self._key in _held:
            raise InUseError(self.root, LockHolder.this_process([]))
        self._check_others()

    def acquire(self) -> None:
        """Lock the folder for this call, and remove what a killed process left half-written. The lock is renewed until
        `release`. Raises InUseError as `check`, and UserError if the folder cannot be written."""
        renewal = _Renewal(self)
        with _threads:
            if self._key in _held:
                raise InUseError(self.root, LockHolder.this_process([]))
            _held[self._key] = renewal
        try:
            with _one_at_a_time(self.root) as renewal.made_folders:
                self._check_others()
                holder = self._holder()
                if holder and holder.is_this_process:  # an interrupted call did not come to its release
                    renewal.made_folders = holder.made_folders
                remove_leftovers(self.root, below=self.below)
                self._write(renewal.made_folders)
            renewal.start()
        except BaseException:
            del _held[self._key]
            raise

    def renew(self) -> None:
        """Renew the lock, which this process has acquired. A local folder that was removed is not made again. Raises
        LostLockError if another process has taken the folder, and UserError if it cannot be written."""
        renewal = _held[self._key]
        with _one_at_a_time(self.root, make=False):
            if not storage.is_remote(self.root) and not os.path.isdir(storage.filesystem(self.root)[1]):
                return
            holder = self._holder()
            # Without a holder the other one may have ended by now.
            if (holder and not holder.is_this_process) or (not holder and renewal.is_late):
                raise LostLockError(self.root, holder)
            self._write(renewal.made_folders)
            renewal.renewed = time.time()

    def check_held(self) -> None:
        """Raise LostLockError if another process took the folder from a call in this process that has locked it, and
        UserError if that cannot be found out."""
        renewal = _held.get(self._key)
        if renewal and renewal.lost:
            raise renewal.lost
        if renewal and renewal.is_late:  # the machine was suspended, and the thread has not looked yet
            self.renew()

    def release(self) -> None:
        """Unlock the folder. A local one that is empty is removed, with the folders that were made for it."""
        renewal = _held.get(self._key)
        try:
            if renewal:
                renewal.end()
        finally:  # also after a Ctrl-C meanwhile
            try:
                with _one_at_a_time(self.root, make=False):
                    self._remove()
            finally:
                _held.pop(self._key, None)

    def _remove(self) -> None:
        holder = self._holder()
        if holder and holder.is_this_process:
            storage.remove(self.url)
            if not storage.is_remote(self.root):
                remove_empty(dict.fromkeys([storage.filesystem(self.root)[1], *holder.made_folders]))

    def _check_others(self) -> None:
        holder = self._holder()
        if holder and not holder.is_this_process and holder.is_alive:
            raise InUseError(self.root, holder)

    def _write(self, made_folders: list[str]) -> None:
        storage.write_json(self.url, LockHolder.this_process(made_folders).to_dict(), shown=self.root)

    def _holder(self) -> LockHolder | None:
        try:
            content = storage.read_own(self.url)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return LockHolder.from_dict(storage.parse_json(content, self.url), self.url)
        except UserError as error:
            raise UserError(
                f"{self.url}: not a lock file of animalclf; if no command uses this folder, remove the file"
            ) from error


class _Renewal(threading.Thread):
    """Renews `lock` until `end`, or until another process has taken the folder."""

    def __init__(self, lock: FolderLock) -> None:
        super().__init__(daemon=True)
        self.lock, self.renewed = lock, time.time()
        self.made_folders: list[str] = []
        self.lost: LostLockError | None = None
        self._ended = threading.Event()

    @property
    def is_late(self) -> bool:
        """Whether another host may have taken the folder since the last renewal."""
        return time.time() - self.renewed > STALE_SECONDS

    def run(self) -> None:
        while not self._ended.wait(STALE_SECONDS / 4):
            try:
                self.lock.renew()
            except LostLockError as error:
                self.lost = error
                return
            except Exception:  # noqa: BLE001  (it cannot be written now: the command will say so)
                continue

    def end(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()


@contextmanager
def locked(root: str) -> Iterator[FolderLock]:
    """Lock the folder `root` within the block. Raises as `FolderLock.acquire`."""
    lock = FolderLock(root)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def _one_at_a_time(root: str, *, make: bool = True) -> Iterator[list[str]]:
    """Within the block no other process of this machine is in this block for the same local folder, which is made
    (`make`). Yields the folders that were made, from the inside."""
    made: list[str] = []
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks, or a folder that cannot be made: see below
            path = "" if storage.is_remote(root) else storage.filesystem(root)[1]
            for _ in range(REMOVALS if path else 0):
                if make and (missing := missing_folders(root)):
                    os.makedirs(path, exist_ok=True)
                    made = max(made, missing, key=len)
                with contextlib.suppress(FileNotFoundError):  # it was removed by the process that was waited for
                    folder = os.open(path, os.O_RDONLY)
                    stack.callback(os.close, folder)
                    fcntl.flock(folder, fcntl.LOCK_EX)
                    if os.path.samestat(os.fstat(folder), os.stat(path)):
                        break
        yield made


def _is_alive(pid: int, started: float, in_boot: str) -> bool:
    """Whether the process `pid` runs and started at `started` (or `in_boot`): its number may belong to another process
    by now. One that was killed and that its parent does not wait for, as in containers without an init, has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if in_boot and in_boot == start_in_boot(pid):
            return True
        return abs(process.create_time() - started) < SAME_PROCESS_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def start_in_boot(pid: int) -> str:
    """The machine's boot and the start of the process `pid` after it, which no change of the clock alters; empty where
    the system is not Linux. (Elsewhere a process's start time does not follow the clock.)"""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""
