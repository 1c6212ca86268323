"""Files and folders that nobody else has a say in: opened only where they are files, and kept to one's account."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bettersynth.core.errors import PersonError

TEMPORARY = re.compile(r"\..+\.\w+\.(?P<pid>\d+)\.tmp(\.old)?")
"""Names under which results are written: host, SLURM job and process end them."""
SCRATCH = re.compile(r"bettersynth-(?P<pid>\d+)-\w+")


class TakenError(PersonError, OSError):
    """Another account has taken a name that is needed."""


def open_file(path: str | Path) -> io.BufferedReader:
    """A file to read. Raises OSError for what is none: a named pipe keeps who opens it waiting, a device never ends."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a named pipe, socket or device, and no file", str(path))
    return file


def own_folder(purpose: str) -> Path:
    """A folder for temporary files that this account's jobs share, which no other account may write into.

    Raises TakenError where another account has made one of its name, or opened it to others.
    """
    path = Path(tempfile.gettempdir(), f"bettersynth-{purpose}-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise TakenError(f"{path}: not a folder of yours alone: remove it, or set TMPDIR to a folder of your own")
    return path


@contextlib.contextmanager
def scratch_folder(place: str | None = None) -> Iterator[Path]:
    """A temporary folder for this process; those that killed ones of this account left there are removed."""
    for path in Path(place or tempfile.gettempdir()).glob("bettersynth-*"):
        found = SCRATCH.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if found and path.lstat().st_uid == os.getuid() and not _lives(int(found["pid"])):
                shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=f"bettersynth-{os.getpid()}-", dir=place) as folder:
        yield Path(folder)


@cache
def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left half written in a folder; once for each folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not half_written(Path(entry.path)):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()


def half_written(path: Path) -> bool:
    """Whether a file or folder has the name of what a process of this machine was writing that lives no more."""
    found = TEMPORARY.fullmatch(path.name)
    return found is not None and f".{platform.node()}." in path.name and not _lives(int(found["pid"]))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another account's
        pass
    return True
