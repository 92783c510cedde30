"""What a user asks for -> a job: what the source is, where it goes, what is done with each image."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from inrstore import files
from inrstore.archive.bids import DESCRIPTION
from inrstore.archive.items import Job, SourceKind
from inrstore.archive.record import VERSION
from inrstore.archive.report import check_replaceable
from inrstore.archive.rules import Rules, Selection, matches, read_rules
from inrstore.chunk.frame import VERSION as FORMAT_VERSION
from inrstore.errors import ConfigurationError, SourceError
from inrstore.files.names import check_name
from inrstore.store import manifest
from inrstore.store.conversion import Wish

Nature: TypeAlias = Literal["file", "zip", "folder"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for, apart from source and destination.

    Parameters
    ----------
    wish : Wish
        For all images that no rule speaks of.
    asked : bool
        Whether a quality was named.
    rules : str
        Path or URL of a rules file; empty for none.
    include, exclude : tuple of str
        Globs.
    """

    wish: Wish
    asked: bool = False
    rules: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def read(self) -> tuple[Rules, Selection]:
        """Return what is done with which file.

        Raises
        ------
        ConfigurationError, SourceError
            For globs and rules that are wrong; the message names them.
        """
        for name in ("include", "exclude"):
            globs = getattr(self, name)
            if isinstance(globs, str) or not all(isinstance(glob, str) and glob for glob in globs):
                raise ConfigurationError(f"{name} must be globs, not {globs!r}")
            for glob in globs:
                matches(glob, "")
        base = replace(self.wish, mask=_mask(self.wish.mask))
        rules = read_rules(self.rules, base, asked=self.asked) if self.rules else Rules(base=base)
        return rules, Selection(include=tuple(self.include), exclude=tuple(self.exclude))


def nature(source: str) -> Nature:
    """Return what a source is: a folder (or the prefix of a bucket), a zip, or another file.

    Raises
    ------
    SourceError
        If there is nothing.
    """
    place, key = files.split(source)
    if key and place.size(key) is not None:
        return "zip" if key.lower().endswith(".zip") else "file"
    if files.is_url(source):
        if next(iter(files.place(source).walk()), None) is None:
            raise SourceError(f"{source}: no such file or prefix")
        return "folder"
    if not os.path.isdir(source):
        raise SourceError(f"{source}: {'not a regular file' if os.path.lexists(source) else 'no such file'}")
    return "folder"


def make_job(source: str, destination: str, request: Request, *, batch: int = 1, pictures: bool = False) -> Job:
    """Return the job that a request is.

    Parameters
    ----------
    source, destination : str
        Paths or URLs.
    request : Request
    batch : int
        Images that are fitted together.
    pictures : bool
        Whether a page with pictures is wanted.

    Raises
    ------
    SourceError, ConfigurationError
    """
    source, destination = absolute(source), absolute(destination)
    check_apart(source, destination)
    if batch < 1:
        raise ConfigurationError(f"batch must be 1 or more, not {batch}")
    rules, selection = request.read()
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if not name.isprintable() and check_name(name) == "not valid Unicode":
        raise ConfigurationError(f"{source!r}: its name is not UTF-8")
    kind: SourceKind = "tree"
    if nature(source) == "zip":
        kind, source = "zip", files.split(source)[0].name
    elif files.place(source).size(DESCRIPTION) is not None:
        kind = "bids"
    return Job(
        source=source, destination=destination, kind=kind, name=name, rules=rules, selection=selection,
        pictures=pictures, batch=batch,
    )  # fmt: skip


def document(job: Job) -> dict[str, Any]:
    """Return the record of a job. It goes where the archive goes, so it names no folders of this machine."""
    base = job.rules.base
    where = f"{job.source}/{job.name}" if job.kind == "zip" else job.source
    return {
        "version": VERSION,
        "tool": f"inrstore {version('inrstore')}",
        "format": FORMAT_VERSION,
        "source": {"kind": job.kind, "name": job.name, "at": manifest.digest(where.encode())},
        "options": {
            "promise": base.promise.to_dict(),
            "preset": base.options.preset,
            "mode": base.options.mode,
            "seed": base.options.seed,
            "zarr_format": base.zarr_format,
            "mask": _described(base.mask),
            "rules": [{**rule, **({"mask": _described(rule["mask"])} if "mask" in rule else {})}
                      for rule in job.rules.to_dict()],
            "include": list(job.selection.include),
            "exclude": list(job.selection.exclude),
        },
    }  # fmt: skip


def absolute(where: str) -> str:
    """Return a path or URL as workers in other folders see it."""
    return where.rstrip("/") if files.is_url(where) else os.path.abspath(where)


def _mask(mask: str) -> str:
    """Return the mask of a command: the path of a file there is, or a name to be looked up beside each image."""
    if not mask or files.is_url(mask):
        return mask
    if os.path.isfile(mask):
        return os.path.abspath(mask)
    if os.path.isabs(mask):
        raise SourceError(f"{mask}: no such mask")
    return mask


def _described(mask: str) -> str:
    if not os.path.isabs(mask):
        return mask
    sha256 = hashlib.sha256()
    with open(mask, "rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return f"{Path(mask).name} ({manifest.shorten(sha256.digest())})"


def check_page(page: str, job: Job) -> None:
    """Refuse a page that would replace a file of the source or the archive, or something that is no page."""
    if files.is_url(page) or not page.lower().endswith((".html", ".htm")):
        raise ConfigurationError(f"{page}: the report must be a file of this machine that ends in .html")
    for place in (job.source, job.destination):
        if not files.is_url(place) and f"{os.path.realpath(page)}/".startswith(f"{os.path.realpath(place)}/"):
            raise ConfigurationError(f"{page}: the report cannot lie in {place}")
    check_replaceable(Path(page))


def check_apart(source: str, destination: str) -> None:
    """Refuse an archive in its own source, which would grow while it is read, and the other way round."""
    if files.is_url(source) != files.is_url(destination):
        return
    one, other = source, destination
    if not files.is_url(source):
        one, other = os.path.realpath(source), os.path.realpath(destination)
    if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
        raise ConfigurationError(f"{destination}: source and destination cannot lie in each other")
