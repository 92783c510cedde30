"""Which names of files can be written safely anywhere: on Linux, macOS and Windows, and inside the target."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from inrstore import limits

RECORD = ".inrstore"
"""The folder of an archive's own record; no source may bring one."""

_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)


def check_name(key: str) -> str:
    """Return why a key cannot be a path below any target, or "" if it can.

    Parameters
    ----------
    key : str
        A path with slashes, as a zip or a listing gives it.

    Returns
    -------
    str
        "leads out of its folder (..)", "a device name of Windows: 'aux.nii'"; empty if nothing is wrong.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "not valid Unicode"
    if not key:
        return "an empty name"
    if "\0" in key:
        return "a NUL character"
    if key.startswith(("//", "\\\\")):
        return "a network path (UNC)"
    if key.startswith("/"):
        return "an absolute path"
    if _DRIVE.match(key):
        return "a drive letter"
    if "\\" in key:
        return "a backslash, which is a slash to some systems"
    if size > limits.MAX_PATH_BYTES:
        return f"longer than {limits.MAX_PATH_BYTES} bytes"
    parts = key.split("/")
    if len(parts) > limits.MAX_PATH_PARTS:
        return f"more than {limits.MAX_PATH_PARTS} folders deep"
    return next(filter(None, map(_check_part, parts)), "")


def _check_part(part: str) -> str:
    if part == "..":
        return "leads out of its folder (..)"
    if part in ("", "."):
        return "an empty part ('//' or '/./')"
    if len(part.encode()) > limits.MAX_PART_BYTES:
        return f"a part longer than {limits.MAX_PART_BYTES} bytes"
    # Windows ends the name of a device at the first dot or colon, and drops blanks before it.
    if _DEVICE.fullmatch(re.split("[.:]", part, maxsplit=1)[0].rstrip(" ")):
        return f"a device name of Windows: {part!r}"
    if folded(part) == RECORD:
        return f"{RECORD!r}, the name of an archive's own record"
    return ""


def folded(key: str) -> str:
    """Return what names have in common that are the same name somewhere.

    Case and Unicode form do not tell names apart on macOS and Windows, dots and blanks at the end not on Windows.
    """
    # Folding can undo a normal form and the other way round; this is Unicode's canonical caseless match.
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", key).casefold())
    return "/".join(part.rstrip(". ") or part for part in text.split("/"))


def first_clash(files: Iterable[str], folders: Iterable[str] = ()) -> tuple[str, str] | None:
    """Return a name that cannot lie in one tree with the others, and why; None if all can.

    Parameters
    ----------
    files, folders : iterable of str
        Keys that `check_name` has passed. Folders that follow from the files need not be given.
    """
    # Below any character of a name, so that what lies in a folder follows the folder's own name at once.
    entries = [(folded(key).replace("/", "\0"), False, key) for key in files]
    entries += [(folded(key).replace("/", "\0"), True, key) for key in folders]
    entries.sort()
    for (one, one_is_folder, before), (other, other_is_folder, key) in pairwise(entries):
        if one != other:
            if not one_is_folder and other.startswith(one + "\0"):
                return key, f"needs a folder where {before!r} is a file"
        elif one_is_folder != other_is_folder:
            return key, f"a folder where {before!r} is a file"
        elif before == key:
            return key, "is there twice"
        elif not one_is_folder:
            return key, f"differs from {before!r} in case or Unicode form alone"
    return None
