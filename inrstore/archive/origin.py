"""An archive beside its source as it is today: where a file of the archive came from, and what it does not hold.

Keys lead into trees, zips, and what dcm2niix makes of a DICOM folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, cast

from inrstore import files
from inrstore.archive.catalogue import Names
from inrstore.archive.manifest import source_kind
from inrstore.archive.plan import Plan, SourceKind
from inrstore.archive.rules import Rules
from inrstore.archive.zips import splits
from inrstore.errors import SourceError
from inrstore.files import Place
from inrstore.files.closing import Closing
from inrstore.files.zip_members import Member
from inrstore.files.zips import ZipPlace
from inrstore.sources import dicom
from inrstore.store.options import Options
from inrstore.store.quality import Quality


class Origin(Closing):
    """The source of an archive, to be compared with it. At most one zip and one DICOM folder of it are open at a time.

    Parameters
    ----------
    place : Place
        The source; of a single zip, the folder that holds it.
    renamed : tuple of str, optional
        The key of a zip as it was recorded, and what it is called now.
    """

    def __init__(self, place: Place, renamed: tuple[str, str] = ("", "")) -> None:
        self.place = place
        self._recorded, self._now = renamed
        self._open: tuple[str, Origin] | None = None
        self._stack = ExitStack()

    def locate(self, key: str) -> tuple[Place, str]:
        """Return the place that holds a file of the source, and its key there; good until the next call.

        Parameters
        ----------
        key : str
            As in the manifest: "sub-1/anat/T1.nii.gz", "a/1.zip:dMRI/data.nii.gz", or "scan/series-3.nii" of
            what dcm2niix makes of the folder "scan".

        Raises
        ------
        SourceError
            If the source does not have it, or the zip or DICOM folder cannot be read.
        """
        key = self._today(key)
        if key and self.place.size(key) is not None:
            return self.place, key
        for head, tail in splits(key):
            if head.lower().endswith(".zip") and self.place.size(head) is not None:
                return self._zip(head).locate(tail)
        head, _, tail = key.rpartition("/")
        name = f"{head}/"
        if (self._open is not None and self._open[0] == name) or dicom.is_dicom(self.place, head):
            return self._inside(name, partial(dicom.converted, self.place, head)).locate(tail)
        raise SourceError(f"{self.place.label(key)}: the source has no such file")

    def members(self, key: str) -> list[Member]:
        """Return the members of a zip of the source.

        Raises
        ------
        SourceError
            If the source does not have it, or it cannot be read.
        """
        place = self._zip(self._today(key)).place
        assert isinstance(place, ZipPlace)
        return place.members()

    def _today(self, key: str) -> str:
        """Return what a key is called now."""
        if self._recorded and key.startswith(self._recorded):
            return self._now + key.removeprefix(self._recorded)
        return key

    def _zip(self, key: str) -> Origin:
        return self._inside(f"{key}:", partial(ZipPlace, self.place, key))

    def _inside(self, name: str, opener: Callable[[], AbstractContextManager[Place]]) -> Origin:
        """Open what lies inside a file or folder of the source, unless it is open already."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = name, self._stack.enter_context(Origin(self._stack.enter_context(opener())))
        return self._open[1]

    def close(self) -> None:
        """Close what is open."""
        self._open = None
        self._stack.close()


def origin_of(job: Mapping[str, Any], where: str | os.PathLike[str]) -> Origin:
    """Return the source of a job, given by its path or URL of today."""
    if source_kind(job) != "zip":
        return Origin(files.place(where))
    place, name = files.split(where)
    return Origin(place, (str(job["source"].get("name")), name))


def not_archived(source: Place, job: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Yield what the job would convert or copy of a source today, and the archive does not hold."""
    options = job.get("options")
    options = options if isinstance(options, Mapping) else {}
    include, exclude = (tuple(options.get(name) or ()) for name in ("include", "exclude"))
    rules = Rules(base=Options(quality=Quality(lossless=True)), include=include, exclude=exclude)
    with Plan(source, cast(SourceKind, source_kind(job)), rules) as plan:
        for item in plan:
            held = names.has_below(item.key) if item.kind == "dicom" else names.has_key(item.key)
            if not held:
                yield item.key
