"""Leases: who is writing an output, or driving a run, right now.

A lease is a small JSON file that its holder makes, touches every few seconds and removes. On the holder's own machine
its process is looked up, which is exact and instant. From another machine the file is watched: one that is not touched
while we look belongs to nobody. No clocks are compared, so clocks may differ.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
PATIENCE_S = 60.0
"""How long a lease of another machine is watched; longer than a heartbeat and a network file system's caches."""

WITHOUT_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""What a disk says that has no hard links: exFAT, SMB, some FUSE."""

SETTLE_S = 1.0
"""A lease that is taken over is read again after this time: of two that take it, the last one has it."""


LOST: dict[str, Any] = {}
"""What a lease says whose file a power cut left empty or torn."""


class HeldError(RuntimeError):
    """A live process holds the lease; `holder` is what its file says."""

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        job = f", SLURM job {holder['slurm_job']}" if holder.get("slurm_job") else ""
        super().__init__(f"held by process {holder['pid']} on {holder['host']}{job} ({path})")
        self.holder = holder


class Lease:
    """A lease that this process holds until `release`; `acquire` makes one."""

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        self.path = path
        self.holder = holder
        self._released = threading.Event()

    @classmethod
    def acquire(cls, path: Path, **facts: Any) -> Lease:
        """Take the lease `path`, also from a holder that is gone. Raises HeldError while its holder lives.

        `facts` are kept in the file beside host, pid and SLURM job. It is released when the process ends in order.
        """
        path = path.absolute()  # the folder may be another when the process ends
        path.parent.mkdir(parents=True, exist_ok=True)
        lease = cls(path, {**_me(), **facts})
        while not lease._create():
            found = read(path)
            if found is None:
                continue
            if found and is_live(path, found):
                raise HeldError(path, found)
            lease._take_over()
            break
        atexit.register(lease.release)
        threading.Thread(target=lease._beat, name="lease", daemon=True).start()
        return lease

    def release(self) -> None:
        """Give the lease up; a second time does nothing."""
        if not self._released.is_set():
            self._released.set()
            if read(self.path) == self.holder:
                self.path.unlink(missing_ok=True)

    def _write(self) -> Path:
        temporary = self.path.with_name(f".{self.path.name}.{self.holder['host']}.{os.getpid()}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self.holder) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _create(self) -> bool:
        """Make the file with its contents in one step, where the disk has hard links; False when there is one."""
        temporary = self._write()
        try:
            self.path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            return self._create_empty(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_empty(self, temporary: Path) -> bool:
        """Take the name and then fill the file; whoever reads in between reads again (see `read`)."""
        try:
            self.path.touch(exist_ok=False)
        except FileExistsError:
            return False
        temporary.replace(self.path)
        return True

    def _take_over(self) -> None:
        self._write().replace(self.path)
        time.sleep(SETTLE_S)
        found = read(self.path)
        if found is not None and found != self.holder:
            raise HeldError(self.path, found)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # a file system that is away for a moment
                found = read(self.path)
                if found == self.holder:
                    os.utime(self.path)
                elif found == LOST and not self._released.is_set():
                    self._write().replace(self.path)
                elif found and not self._released.is_set():
                    # Stopped for so long that another process has taken over: it writes now, not we.
                    logger.error("%s: lost to another process; ending here", self.path)
                    os._exit(1)


def read(path: Path) -> dict[str, Any] | None:
    """What a lease says of its holder; None when there is no lease, LOST when its file is empty or torn.

    An empty one is looked at again a moment later: on a disk without hard links it may be in the making.
    """
    for wait in (SETTLE_S, 0.0):
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            holder = LOST
        if isinstance(holder, dict) and "place" in holder:
            return holder
        time.sleep(wait)
    _tell_lost(path)
    return LOST


@cache
def _tell_lost(path: Path) -> None:
    logger.warning("%s: empty or torn, as a power cut leaves files; nobody holds it: the next run replaces it", path)


def is_live(path: Path, holder: dict[str, Any], patience: float = PATIENCE_S) -> bool:
    """Whether the holder of a lease is at work; takes up to `patience` seconds when it is on another machine.

    One of whom nothing is known is not.
    """
    if not holder.get("place"):
        return False
    if is_local(holder):
        return _started(holder["pid"]) == holder["started"]
    touched = _touched(path)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(min(HEARTBEAT_S, patience) / 10)
        if _touched(path) != touched:
            return path.exists()
    return False


def live(folder: Path) -> list[dict[str, Any]]:
    """Holders of leases below a folder that are at work; those on other machines are watched all at one time.

    Leases that a power cut left empty or torn are removed.
    """
    found = {path: holder for path in sorted(folder.rglob("*.json")) if (holder := read(path)) is not None}
    for path in [path for path, holder in found.items() if holder == LOST]:
        found.pop(path)
        path.unlink(missing_ok=True)
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        at_work = pool.map(is_live, found, found.values())
        return [holder for holder, works in zip(found.values(), at_work, strict=True) if works]


def seems_live(path: Path, holder: dict[str, Any]) -> bool:
    """Like `is_live`, but a holder on another machine is believed."""
    return bool(holder.get("place")) and (not is_local(holder) or is_live(path, holder))


def is_local(holder: dict[str, Any]) -> bool:
    """Whether the holder is or was a process of this machine, so that its fate is known at once."""
    return bool(holder["place"] == _place())


def _touched(path: Path) -> int | None:
    """The file's time of change as the file server has it; opening it makes a network file system ask."""
    with contextlib.suppress(FileNotFoundError), path.open() as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None


def _me() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "place": _place(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _place() -> str:
    """Where a process id means a process: this boot of this host, and this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot: tells it from a later one of the same id. None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
