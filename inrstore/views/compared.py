"""Several stores of one image -> what a server shows of each of them, below its number, as if they were an archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from inrstore.errors import ConfigurationError
from inrstore.files.closing import Closing
from inrstore.views.listed import Listed
from inrstore.views.served import Resource, Served
from inrstore.views.vfs import VirtualEntry

MOST = 6
"""Stores that are compared: a page has room for them, and a browser canvases."""


class Compared(Closing):
    """Stores of one image, and what they were made from.

    Parameters
    ----------
    stores : sequence of str
        Paths or URLs, at most `MOST`.
    source : path-like or str, optional
        The image that they were made from.
    scratch : str, optional
        As of `Served`.

    Raises
    ------
    ConfigurationError
        If there are none or too many, one is an archive, or there is no such source.
    StoreError
        If one is damaged, or no store.
    """

    def __init__(
        self, stores: Sequence[str], source: str | os.PathLike[str] | None = None, scratch: str | None = None
    ) -> None:
        if not 0 < len(stores) <= MOST:
            raise ConfigurationError(f"{len(stores)} stores: from 1 to {MOST} can be compared")
        self._stack = ExitStack()
        self._served = list[Served]()
        self._listed = list[Listed]()
        try:
            for store in stores:
                self._served.append(self._stack.enter_context(Served(store, source, scratch)))
                if self._served[-1].vfs.is_archive:
                    raise ConfigurationError(f"{store}: is an archive; say which of its stores")
                self._listed.append(self._stack.enter_context(Listed(self._served[-1])))
        except BaseException:
            self.close()
            raise
        names = [served.vfs.name for served in self._served]
        self._names = [store if names.count(name) > 1 else name for store, name in zip(stores, names, strict=True)]
        self.name = os.path.basename(os.fspath(source)) if source is not None else names[0]

    def close(self) -> None:
        """Let go of them."""
        self._stack.close()

    def page(self, offset: int, limit: int, words: str = "") -> dict[str, Any]:
        """Return the images as `Listed.page` does; their kind is "compare"."""
        images = [self._numbered(number, listed.page(0, 1)["images"][0]) for number, listed in enumerate(self._listed)]
        found = [image for image in images if words.lower() in image["path"].lower()]
        return {
            "name": self.name, "kind": "compare", "total": len(found), "offset": offset, "limit": limit,
            "files": sum(served.vfs.count() for served in self._served), "images": found[offset : offset + limit],
        }  # fmt: skip

    def image(self, path: str) -> dict[str, Any]:
        """Return what there is to know of one, as `Listed.image` does."""
        number, rest = self._split(path)
        return self._numbered(number, self._listed[number].image(rest))

    def open(self, path: str) -> Resource:
        """Return what a path names: as `Served.open`, with the number of the store behind the kind."""
        kind, _, rest = path.partition("/")
        number, rest = self._split(rest)
        return self._served[number].open(f"{kind}/{rest}")

    def entries(self, folder: str) -> list[VirtualEntry]:
        """Return what is in a folder below `nii`."""
        if not folder:
            return [VirtualEntry(str(number), True) for number in range(len(self._served))]
        number, rest = self._split(folder)
        found = self._served[number].vfs.entries(rest)
        return [replace(entry, path=f"{number}/{entry.path}") for entry in found]

    def _split(self, path: str) -> tuple[int, str]:
        number, _, rest = path.partition("/")
        if number not in map(str, range(len(self._served))):
            raise FileNotFoundError(path)
        return int(number), rest

    def _numbered(self, number: int, image: dict[str, Any]) -> dict[str, Any]:
        found = {**image, "path": f"{number}/{image['path']}", "store": f"{number}/{image['store']}",
                 "name": self._names[number]}  # fmt: skip
        if "urls" in image:  # /nii/bold.nii -> /nii/0/bold.nii
            parts = {name: url and url.split("/", 2) for name, url in image["urls"].items()}
            found["urls"] = {name: part and f"/{part[1]}/{number}/{part[2]}" for name, part in parts.items()}
            found["files"] = [{**file, "path": f"{number}/{file['path']}"} for file in image["files"]]
        return found
