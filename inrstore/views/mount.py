"""A store or an archive -> a folder of this machine, by FUSE: every program reads it without knowing.

Read only, nosuid, nodev. The kernel keeps pages and names for as long as the mount lasts (`kernel_cache` and the
timeouts below), because what a mount shows never changes: it is the archive at the time of mounting. Files go through
the page cache (no `direct_io`), without which they could not be mapped into memory.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inrstore import files
from inrstore.codecs import decoded
from inrstore.errors import ConfigurationError, InrstoreError, MissingDependencyError, StoreError
from inrstore.views.content import cache_bytes
from inrstore.views.vfs import Vfs, VirtualFile

_FOREVER = 1 << 24
"""Seconds for which the kernel takes a name or a size for known."""
_SUBTYPE = "inrstore"
_PATIENCE = 60.0
"""Seconds for a mount to appear."""
_MOST_TOLD = 1000
_THREADS = 10
"""As libfuse has itself, which from 3.12 on says so on standard error if it is not told."""
_DEVICE = Path("/dev/fuse")
_MOUNTS = Path("/proc/self/mountinfo")
_started: dict[str, subprocess.Popen[bytes]] = {}
"""By folder the processes in the background that this one began: one that ended is to be asked for."""
_GOODBYE = 10.0
"""Seconds for such a process to end after its mount."""
_LOOP_ENDED = 8
"""What fuse_main returns when it was mounted and its loop ended by a signal, or an error."""


def mount(
    where: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    gz: bool = False,
    foreground: bool = False,
    allow_other: bool = False,
    cache: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
) -> None:
    """Show a store or an archive as the files that it was made from, in a folder, until it is unmounted.

    Parameters
    ----------
    where : path-like or str
        Path or URL.
    folder : path-like
        An empty folder.
    gz : bool
        As in `inrstore.views.vfs.Vfs`.
    foreground : bool
        Stay here until it is unmounted, or SIGTERM or SIGINT comes; else a process of its own does, and this returns
        when the files are there.
    allow_other : bool
        Let other users read, too, which /etc/fuse.conf must allow.
    cache : int, optional
        Bytes of decoded chunks to keep; by default a quarter of the memory, at most 1 GiB.
    scratch : path-like, optional
        Folder for the voxels of images that are larger than half of that, as they are decoded; by default that of the
        system for temporary files. An image for which it has no room is decoded again for each volume that is read.
    log : path-like, optional
        File to which a process in the background appends why a read failed.

    Raises
    ------
    StoreError
        If there is no such store or archive, it is damaged, or the folder cannot be mounted on.
    ConfigurationError
        If the folder is none, or is not empty.
    MissingDependencyError
        Without mfusepy, the library of FUSE, or /dev/fuse.
    """
    folder = os.path.abspath(os.fspath(folder))
    where = os.fspath(where) if files.is_url(where) else os.path.abspath(os.fspath(where))
    _check_folder(folder)
    aside = os.path.abspath(tempfile.gettempdir() if scratch is None else os.fspath(scratch))
    if not os.path.isdir(aside):
        raise ConfigurationError(f"{aside}: is no folder")
    fuse = _fuse()
    with Vfs(where, gz=gz, scratch=aside) as vfs:
        if foreground:
            decoded.cache(cache_bytes() if cache is None else cache)
            _serve(fuse, vfs, folder, allow_other=allow_other)
            return
    asked = {"where": where, "folder": folder, "gz": gz, "allow_other": allow_other, "cache": cache, "scratch": aside}
    _start(asked, folder, None if log is None else Path(log))


def unmount(folder: str | os.PathLike[str]) -> None:
    """Take away what `mount` showed in a folder.

    Parameters
    ----------
    folder : path-like

    Raises
    ------
    ConfigurationError
        If it is no mount of this program.
    StoreError
        If it is in use, or cannot be unmounted.
    """
    path = os.path.abspath(os.fspath(folder))
    if not is_mounted(path):
        raise ConfigurationError(f"{path}: inrstore shows nothing there")
    problem = "neither fusermount3 nor umount is installed"
    for command in (["fusermount3", "-u", path], ["fusermount", "-u", path], ["umount", path]):
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own words
            if done.returncode == 0:
                if path in _started:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        _started[path].wait(_GOODBYE)
                        del _started[path]
                return
            problem = done.stderr.strip() or f"{command[0]} failed"
    raise StoreError(f"{path}: cannot be unmounted: {' '.join(problem.split())}")


def is_mounted(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder shows something of this program; where the system does not tell, whether of any."""
    path = os.path.realpath(folder)
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return os.path.ismount(path)
    # man 5 proc: the mount point is the fifth field; type and source follow a hyphen; blanks are octal escapes.
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n")
        if point.replace("\\134", "\\") == path and after.startswith(f"fuse.{_SUBTYPE} "):
            return True
    return False


def process_of(folder: str | os.PathLike[str]) -> int:
    """Return the number of the process in the background that this one began for a mount.

    Raises
    ------
    KeyError
        If it began none.
    """
    return _started[os.path.abspath(os.fspath(folder))].pid


# ---- the process that answers


class Operations:
    """What the kernel asks, answered from a `Vfs`; by several threads at once.

    Parameters
    ----------
    vfs : Vfs

    Attributes
    ----------
    mounted : bool
        Whether the kernel has begun to ask.
    """

    use_ns = True  # of mfusepy: times are integers

    def __init__(self, vfs: Vfs) -> None:
        self._vfs, self.mounted = vfs, False
        self._open: dict[int, VirtualFile] = {}
        self._numbers = itertools.count(1)
        self._told = set[str]()
        same = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        same |= {name: int(vfs.time * 1e9) for name in ("st_atime", "st_mtime", "st_ctime")}
        self._folder = {**same, "st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2}
        self._file = {**same, "st_mode": stat.S_IFREG | 0o444, "st_nlink": 1}

    def init(self, path: str) -> None:
        """Take note that it is mounted, and load the loops that decode before they are needed."""
        self.mounted = True
        threading.Thread(target=_warm, name="inrstore mount", daemon=True).start()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Return kind, rights, size and times."""
        with self._errors():
            if self._vfs.entry(path).is_folder:
                return self._folder
            size = self._vfs.size(path)
            return {**self._file, "st_size": size, "st_blocks": -(-size // 512)}

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, int, int]]:
        """Return the names in a folder, with their kinds."""
        with self._errors():
            found = self._vfs.entries(path)
        kinds = (self._file["st_mode"], self._folder["st_mode"])
        names = ((entry.name, kinds[entry.is_folder], 0) for entry in found)
        return itertools.chain(((name, kinds[1], 0) for name in (".", "..")), names)

    def open(self, path: str, flags: int) -> int:
        """Open a file; return its number."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        with self._errors():
            number = next(self._numbers)
            self._open[number] = self._vfs.open(path)
            return number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return bytes."""
        with self._errors():
            return self._open[fh].read_at(offset, size)

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        self._open.pop(fh, None)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Return that nothing is free."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_files": self._vfs.count(), "f_namemax": 255}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Let through errors of the system, and say once what is behind one of the disk."""
        try:
            yield
        except UnicodeError:  # a name that is not UTF-8 is none of ours
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
                self._tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            if error.errno is None or error.errno <= 0:
                raise OSError(errno.EIO, str(error)) from error
            raise
        except Exception as error:
            self._tell(f"an error of this program, please report it: {type(error).__name__}: {error}")
            raise OSError(errno.EIO, str(error)) from error

    def _tell(self, text: str) -> None:
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            print(f"inrstore: {text}", file=sys.stderr, flush=True)


def _warm() -> None:
    from inrstore.chunk.kernels import choice

    for name in ("transform", "network", "predictor"):
        choice.find(name, 1 << 40)


def _serve(fuse: Any, vfs: Vfs, folder: str, *, allow_other: bool) -> None:
    """Answer the kernel until it is unmounted."""
    operations = type("InrstoreOperations", (Operations, fuse.Operations), {})(vfs)
    shown = "".join("_" if letter in ",\\" else letter for letter in vfs.label)  # they would end the option
    options: dict[str, Any] = {"allow_other": True} if allow_other else {}
    if (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12):
        options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
    try:
        fuse.FUSE(
            operations, folder, foreground=True, ro=True, nosuid=True, nodev=True, default_permissions=True,
            fsname=shown, subtype=_SUBTYPE, kernel_cache=True, attr_timeout=_FOREVER, entry_timeout=_FOREVER,
            negative_timeout=_FOREVER, **options,
        )  # fmt: skip
    except RuntimeError as error:  # libfuse has said why
        if operations.mounted and error.args == (_LOOP_ENDED,):
            return
        raise StoreError(f"{folder}: cannot be mounted: FUSE refused ({error})") from error


def _start(asked: dict[str, Any], folder: str, log: Path | None) -> None:
    """Have a process of its own do it, and return when the files are there."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asked)]
    with log.open("a+b") if log is not None else tempfile.TemporaryFile() as said:
        before = said.seek(0, os.SEEK_END)
        process = subprocess.Popen(  # noqa: S603 - own words
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True, cwd="/",
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        _started[folder] = process
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if is_mounted(folder):
                return
            time.sleep(0.02)
        if process.poll() is None:
            process.terminate()
            raise StoreError(f"{folder}: cannot be mounted: nothing appeared in {_PATIENCE:.0f} s")
        said.seek(before)
        lines = said.read().decode(errors="replace").strip().splitlines()
    reason = lines[-1].removeprefix("inrstore: ") if lines else f"the process ended with {process.returncode}"
    raise StoreError(reason if reason.startswith(folder) else f"{folder}: cannot be mounted: {reason}")


def _run(asked: dict[str, Any]) -> int:
    try:
        with Vfs(asked["where"], gz=asked["gz"], scratch=asked["scratch"]) as vfs:
            decoded.cache(cache_bytes() if asked["cache"] is None else asked["cache"])
            _serve(_fuse(), vfs, asked["folder"], allow_other=asked["allow_other"])
    except (InrstoreError, OSError) as error:
        print(f"inrstore: {error}", file=sys.stderr)
        return 1
    return 0


# ---- what it needs


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise ConfigurationError(f"{folder}: is no folder; make an empty one to mount on")
    if os.path.ismount(folder):
        raise ConfigurationError(f"{folder}: something is mounted there")
    if os.listdir(folder):
        raise ConfigurationError(f"{folder}: is not empty; what is in it could not be seen while it is mounted on")


def _fuse() -> Any:
    """Return mfusepy."""
    try:
        import mfusepy
    except ImportError as error:
        raise MissingDependencyError('mounting needs mfusepy: pip install "inrstore[mount]"') from error
    except OSError as error:  # it looks for the library when it is imported
        raise MissingDependencyError(
            "mounting needs the library of FUSE: apt install fuse3, or macFUSE of macOS"
        ) from error
    if sys.platform == "linux" and not _DEVICE.exists():
        raise MissingDependencyError(f"mounting needs {_DEVICE}, which this machine or container does not have")
    return mfusepy


if __name__ == "__main__":
    raise SystemExit(_run(json.loads(sys.argv[1])))
