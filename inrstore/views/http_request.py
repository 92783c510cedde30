"""What a request of HTTP says -> which bytes of a file are sent for it: targets, ranges, tags (RFC 9110)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.ASCII | re.IGNORECASE)


class Problem(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status : int
    reason : str
        One line.
    **headers
        With underscores for hyphens.
    """

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, " ".join(reason.split())
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Part:
    """What of a file is sent.

    Parameters
    ----------
    status : int
        200 for all of it, 206 for a part, 304 for none, because who asks has it.
    start, length : int
    headers : tuple of (str, str)
    """

    status: int
    start: int
    length: int
    headers: tuple[tuple[str, str], ...] = ()


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return start and length of the part that a Range header asks for, None if it asks for none that is given.

    That is a header of another unit, one that is no range, and one of several ranges: RFC 9110, section 14.2, lets
    them be answered with the whole.

    Raises
    ------
    Problem
        416, if there is no byte of it.
    """
    found = None if text is None else _RANGE.fullmatch(text)
    if found is None or found.groups() == ("", ""):
        return None
    first, last = (None if part == "" else _number(part) for part in found.groups())
    if first is None:
        assert last is not None
        start, stop = max(0, size - last), size
    else:
        if last is not None and last < first:
            return None
        start, stop = first, size if last is None else min(size, last + 1)
    if start >= stop:
        raise Problem(416, "no byte of that range", Content_Range=f"bytes */{size}")
    return start, stop - start


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 19 else 1 << 62


def _matches(header: str, tag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags has one; in a weak comparison the mark of weak ones does not count."""
    if header.strip() == "*":
        return True
    for one in re.findall(r'(?:W/)?"[^"]*"', header):
        if one == f'"{tag}"' or (weak and one == f'W/"{tag}"'):
            return True
    return False


def path_of(target: str) -> tuple[str, dict[str, list[str]]]:
    """Return path and query of a request's target, decoded once.

    Raises
    ------
    Problem
        400, if it is none, or its path is no UTF-8.
    """
    target = re.sub(r"^https?://[^/?#]*", "", target, count=1, flags=re.IGNORECASE)  # the form for proxies
    raw, _, query = target.partition("?")
    if not raw.startswith("/"):
        raise Problem(400, "the target is no path")
    try:
        path = unquote_to_bytes(raw).decode()
        return path, parse_qs(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise Problem(400, f"the target cannot be read: {error}") from None


def part_of(method: str, asked: Any, size: int, tag: str) -> Part:
    """Return what is sent of a file: conditions first, then the range (RFC 9110, section 13.2.2).

    Parameters
    ----------
    method : str
    asked : multidict
        The headers of the request.
    size : int
        Bytes of the file.
    tag : str
        What changes when they do; "" for a file that has neither a tag nor parts.

    Raises
    ------
    Problem
        412 if it is another file than it should be, 416 if it has no byte of the range.
    """
    if not tag:
        return Part(200, 0, size)
    headers = [("ETag", f'"{tag}"'), ("Accept-Ranges", "bytes")]
    if "If-Match" in asked and not _matches(asked["If-Match"], tag, weak=False):
        raise Problem(412, "it is another one now")
    if "If-None-Match" in asked and _matches(asked["If-None-Match"], tag, weak=True):
        return Part(304, 0, 0, tuple(headers))
    same = "If-Range" not in asked or asked["If-Range"].strip() == f'"{tag}"'
    if method == "GET" and same and len(asked.getall("Range", ())) == 1:
        found = byte_range(asked["Range"].strip(), size)
        if found is not None:
            start, length = found
            headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{size}"))
            return Part(206, start, length, tuple(headers))
    return Part(200, 0, size, tuple(headers))
