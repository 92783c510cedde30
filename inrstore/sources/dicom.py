"""A folder of DICOM files -> NIfTI images with their JSON and gradients, made by dcm2niix in a temporary folder.

dcm2niix is a C++ program that parses what a stranger wrote. It gets copies under names of ours, an empty home, a folder
of its own, and limits of time, memory and file size; what it leaves is looked at before anyone uses it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inrstore import limits
from inrstore.errors import MissingDependencyError, SourceError
from inrstore.files import Place
from inrstore.files.local import Folder
from inrstore.files.scratch import scratch
from inrstore.sources.registry import image_of, is_image, stem

_MAGIC_AT = 128
_START = 4096
"""Bytes in which the class of a DICOM file is named; it is the second element behind the preamble."""

_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]+)", re.DOTALL)
_NO_IMAGE = tuple(
    f"1.2.840.10008.{rest}"
    for rest in ("1.3.10", "5.1.4.1.1.4.2", "5.1.4.1.1.9.", "5.1.4.1.1.11.", "5.1.4.1.1.66", "5.1.4.1.1.88.",
                 "5.1.4.1.1.104.", "5.1.4.1.1.481.3", "5.1.4.1.1.481.5")
)  # fmt: skip
"""Directory, spectroscopy, waveforms, presentation states, raw data and registrations, reports, documents, RT plans."""

_OTHER = (".json", ".bval", ".bvec", ".bvals", ".bvecs", ".tsv", ".csv", ".txt", ".md", ".xml", ".html", ".pdf", ".png",
          ".jpg", ".gif", ".zip", ".gz", ".bz2", ".tar", ".mat", ".h5", ".npy", ".py", ".sh", ".m", ".log")  # fmt: skip
"""Files that are not opened to see whether they are DICOM; from a bucket each would take a request."""

_ROOM = 1 << 28
_ROOM_PER_BYTE = 64
"""What dcm2niix may write, beyond `_ROOM`, for each byte that it reads. Lossless DICOM packs 2 to 4 : 1."""

_WORST = re.compile(
    r"error|corrupt|unable to (open|read|convert)|unsupported|illegal|too large|duplicate", re.IGNORECASE
)
_DERIVED = re.compile(r"(.+?)_(?:Eq|Tilt)(?:_[0-9]+)?[a-z]?")
"""Names of images whose slices were moved to equal distances, or sheared after a tilt of the gantry: interpolated."""

_MOST_WARNINGS, _MOST_WARNING = 20, 200
_OUTPUT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_dicom_file(place: Place, key: str) -> bool:
    """Return whether a file is a DICOM image: "DICM" behind the preamble, and a class that has pixels.

    Reports, presentation states, DICOMDIR and the like are not: they are files like any other.
    """
    # The ending .hdr alone says nothing: other programs use it too.
    if key.lower().endswith(_OTHER) or (is_image(key) and image_of(place, key) is not None):
        return False
    try:
        with place.open(key) as file:
            start = bytes(file.read(_START))
    except OSError:
        return False
    if start[_MAGIC_AT : _MAGIC_AT + 4] != b"DICM":
        return False
    found = _CLASS.search(start)
    return not (found and found[1].decode().startswith(_NO_IMAGE))


def dicom_files(place: Place, folder: str) -> Iterator[str]:
    """Yield the DICOM images that lie in a folder itself, in the order of their names."""
    above = len(folder) + 1 if folder else 0
    for entry in place.walk(folder):
        if "/" not in entry.key[above:] and not entry.problem and is_dicom_file(place, entry.key):
            yield entry.key


def is_dicom(place: Place, folder: str) -> bool:
    """Return whether a DICOM image lies in a folder itself."""
    return any(True for _ in dicom_files(place, folder))


class Converted(Folder):
    """What dcm2niix made; messages name where it came from, not the temporary folder.

    Parameters
    ----------
    path : Path
    label : str
        How messages name it.
    warnings : tuple of str
        What dcm2niix warned of, for all of it.
    """

    def __init__(self, path: Path, label: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(path)
        self._label = label
        self.warnings = warnings

    def derived(self, key: str) -> str:
        """Return from which series an image was interpolated; empty for one that has the values of the scanner."""
        found = _DERIVED.fullmatch(stem(key))
        return found[1] if found else ""

    def label(self, key: str) -> str:
        """Return how messages name a file."""
        return f"{self._label}:{key}"


@contextmanager
def converted(place: Place, folder: str, *, timeout: float = limits.MAX_DICOM_SECONDS) -> Iterator[Folder]:
    """Convert the DICOM images that lie in a folder itself; folders below it are others.

    Parameters
    ----------
    place, folder : Place, str
        The folder; it is only read.
    timeout : float
        Seconds to give it.

    Yields
    ------
    Folder
        For each series "series-<number>" as .nii and .json, .bval and .bvec where there are any. The bytes depend
        on the files and on the version of dcm2niix alone. It is gone when the context ends.

    Raises
    ------
    SourceError
        Naming the folder and what dcm2niix said; also if it left out a file.
    MissingDependencyError
        Without dcm2niix.
    """
    program = _program()
    label = place.label(folder) if folder else place.name
    with scratch() as (top, held):
        for name in ("in", "out", "home"):
            (top / name).mkdir()
        count, size = _copy(place, folder, label, top / "in")
        room = _ROOM + _ROOM_PER_BYTE * size
        said = _run(program, label, top, held, room, timeout)
        _check_complete(label, said, count)
        _check_outputs(label, top / "out", room)
        yield Converted(top / "out", label, _warnings(said))


def _program() -> str:
    try:
        import dcm2niix
    except ImportError as error:
        raise MissingDependencyError('reading DICOM needs dcm2niix: pip install "inrstore[dicom]"') from error
    return str(dcm2niix.bin)


def _copy(place: Place, folder: str, label: str, to: Path) -> tuple[int, int]:
    """Copy the files under numbers, in the order of their names; return how many and how many bytes."""
    count = size = 0
    for count, key in enumerate(sorted(dicom_files(place, folder)), 1):
        if count > limits.MAX_DICOM_FILES:
            raise SourceError(f"{label}: more than {limits.MAX_DICOM_FILES} DICOM files in one folder")
        try:
            with place.open(key) as source, (to / f"{count:08d}.dcm").open("xb") as copy:
                while block := source.read(1 << 20):
                    size += len(block)
                    if size > limits.MAX_DICOM_BYTES:
                        raise SourceError(f"{label}: more than {limits.MAX_DICOM_BYTES} bytes of DICOM in one folder")
                    copy.write(block)
        except OSError as error:
            raise SourceError(f"{place.label(key)}: cannot be copied: {error.strerror or error}") from error
    if not count:
        raise SourceError(f"{label}: holds no DICOM image")
    return count, size


def _run(program: str, label: str, top: Path, held: int, room: int, timeout: float) -> str:
    """Run dcm2niix; return what it said, without the temporary folder's name."""
    # -g i: nobody's defaults; -ba y: no names and birth dates in the JSON; -w 2: equal names get a letter.
    options = ["-b", "y", "-ba", "y", "-z", "n", "-d", "0", "-w", "2", "-g", "i", "-f", "series-%s"]
    environment = {"HOME": str(top / "home"), "LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
    with (top / "said").open("w+b") as output:
        child = subprocess.Popen(  # noqa: S603 - a list, and nothing in it comes from the source
            [program, *options, "-o", "out", "in"],
            cwd=top,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),
        )
        try:
            _limit(child.pid, room, timeout)
            code = child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{label}: dcm2niix did not finish in {timeout:g} seconds") from error
        finally:
            child.kill()
            child.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - (1 << 20)))
        said = output.read().decode(errors="replace").replace(str(top), "")
    if code:
        reason = f"stopped by {signal.Signals(-code).name}" if code < 0 else f"error {code}"
        raise SourceError(f"{label}: dcm2niix: {reason}: {_gist(said)}")
    return said


def _limit(pid: int, room: int, timeout: float) -> None:
    """Set limits of memory, file size and processor time, where the system can set those of another process."""
    if sys.platform == "linux":
        import resource

        wanted = {
            resource.RLIMIT_AS: 4 * _ROOM + room,
            resource.RLIMIT_FSIZE: room,
            resource.RLIMIT_CPU: int(timeout) + 1,
            resource.RLIMIT_CORE: 0,
        }
        for what, most in wanted.items():
            _, hard = resource.prlimit(pid, what)
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.prlimit(pid, what, (most, most))


def _gist(said: str) -> str:
    """Return the lines that say what went wrong, or the last ones, in one line."""
    lines = list(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
    worst = [line for line in lines if _WORST.search(line)]
    chosen = worst or [line for line in lines if "warning" in line.lower()] or lines
    return "; ".join(chosen[-3:])[:400] or "it said nothing"


def _warnings(said: str) -> tuple[str, ...]:
    """Return each warning once, cut to a length that a record can hold."""
    lines = (line.strip() for line in said.splitlines())
    found = dict.fromkeys(line[:_MOST_WARNING] for line in lines if line.lower().startswith("warning"))
    more = len(found) - _MOST_WARNINGS
    return (*list(found)[:_MOST_WARNINGS], *([f"and {more} more warnings"] if more > 0 else []))


def _check_complete(label: str, said: str, count: int) -> None:
    """Refuse a conversion that left files out: they would be missing from the archive, and nobody would know."""
    done = sum(int(number) for number in re.findall(r"^Convert (\d+) DICOM", said, re.MULTILINE))
    if done < count:
        raise SourceError(f"{label}: dcm2niix converted {done} of {count} DICOM files: {_gist(said)}")


def _check_outputs(label: str, out: Path, room: int) -> None:
    with os.scandir(out) as found:
        entries = list(found)
    if not any(entry.name.endswith(".nii") for entry in entries):
        raise SourceError(f"{label}: dcm2niix made no image")
    if len(entries) > limits.MAX_DICOM_OUTPUTS:
        raise SourceError(f"{label}: dcm2niix made {len(entries)} files, more than {limits.MAX_DICOM_OUTPUTS}")
    total = 0
    for entry in entries:
        if not entry.is_file(follow_symlinks=False) or not _OUTPUT.fullmatch(entry.name):
            raise SourceError(f"{label}: dcm2niix made {entry.name!r}, which is not a file of the usual kind")
        total += entry.stat(follow_symlinks=False).st_size
    if total > room:
        raise SourceError(f"{label}: dcm2niix made {total} bytes, more than the {room} that fit its input")
