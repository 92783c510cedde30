"""A store or an archive -> what its images are, as JSON: some of many from the record alone, one in full."""

from __future__ import annotations

import json
import math
import threading
from typing import Any
from urllib.parse import quote

from inrstore.archive.catalogue import Catalogue
from inrstore.archive.images import ImageRecord, entities_of, modality_of
from inrstore.archive.outcomes import Outcome
from inrstore.archive.record import JOURNAL, archive_place
from inrstore.archive.rules import suffix_of
from inrstore.errors import StoreError
from inrstore.files.closing import Closing
from inrstore.store import layout
from inrstore.store.reader import Store
from inrstore.views.served import Served
from inrstore.views.vfs import VirtualImage

MOST = 1000
"""Images of one answer."""


class _Facts(Catalogue):
    """What the record of an archive says of each store that was ever made, in a temporary database."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "CREATE TABLE facts (out TEXT, seal TEXT, line TEXT, PRIMARY KEY (out, seal)) WITHOUT ROWID", threads=True
        )
        self._lock = threading.Lock()
        made = (record for record in archive_place(where).records(JOURNAL)
                if record.get("event") == "outcome" and record.get("status") == "converted")  # fmt: skip
        rows = ((str(one.get("out")), str(one.get("digest")), json.dumps(one)) for one in made)
        try:
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
        except BaseException:
            self.close()
            raise

    def get(self, out: str, seal: str) -> dict[str, Any]:
        with self._lock:
            row = self._db.execute("SELECT line FROM facts WHERE out = ? AND seal = ?", (out, seal)).fetchone()
        if row is None:
            return {}
        try:
            return _recorded(Outcome.from_dict(json.loads(row[0])))
        except (KeyError, TypeError) as error:
            raise StoreError(f"{JOURNAL}: a line that is none of a job: {error}") from error


class Listed(Closing):
    """What the images are of what is served.

    Parameters
    ----------
    served : Served
    """

    def __init__(self, served: Served) -> None:
        self._served, self._vfs = served, served.vfs
        self._facts = _Facts(self._vfs.where) if self._vfs.is_archive else None

    def close(self) -> None:
        """Let go of it."""
        if self._facts is not None:
            self._facts.close()

    def page(self, offset: int, limit: int, words: str = "") -> dict[str, Any]:
        """Return some of the images, in the order of their paths.

        Parameters
        ----------
        offset, limit : int
            The first, and how many; at most `MOST`.
        words : str
            Only those that have this in their path, in any case of letters.

        Returns
        -------
        dict
            name, kind ("store" or "archive"), total, offset, limit, files, images: for each its `path` in the tree,
            its `store`, and what the record has: null where it does not say.
        """
        limit = min(limit, MOST)
        found = self._vfs.images(offset, limit, words)
        return {
            "name": self._vfs.name, "kind": "archive" if self._vfs.is_archive else "store",
            "total": self._vfs.count_images(words), "offset": offset, "limit": limit, "files": self._vfs.count(),
            "images": [self._brief(image) for image in found],
        }  # fmt: skip

    def _brief(self, image: VirtualImage) -> dict[str, Any]:
        blank = dict.fromkeys(("shape", "dims", "dtype", "quality", "psnr", "max_error", "lossless", "stored_bytes",
                               "source_bytes", "spacing"))  # fmt: skip
        if self._facts is not None:
            facts = self._facts.get(image.store, image.seal)
        else:
            facts = _said(self._vfs.store(image.path))
        return {
            "path": image.path, "store": image.store, "modality": modality_of(image.key) or suffix_of(image.path),
            "entities": entities_of(image.key), **blank, **facts, "has_source": self._has_source(image),
        }  # fmt: skip

    def _has_source(self, image: VirtualImage) -> bool:
        return self._served.originals is not None and self._served.originals.has(image)

    def image(self, path: str) -> dict[str, Any]:
        """Return what there is to know of one image; its store is opened.

        Parameters
        ----------
        path : str
            Of a file of the image, as it is shown or as it was called in the source; or of its store.

        Raises
        ------
        FileNotFoundError
            If there is no such image.
        StoreError, OSError
            If its store is damaged.
        """
        main = self._vfs.first() if path == self._vfs.name and not self._vfs.is_archive else self._vfs.find(path)
        image = self._vfs.image(main or "")
        if image is None:
            raise FileNotFoundError(path)
        store = self._vfs.store(image.path)
        group = f"/zarr/{quote(image.store)}"
        return {
            **self._brief(image), **_said(store),
            "files": [{"path": part, "bytes": self._vfs.size(part)} for part in self._vfs.parts(image.path)],
            "affine": _finite(store.attributes.get("affine")), "affine_from": store.attributes.get("affine_from"),
            "slope": _finite(store.attributes.get("scl_slope")), "inter": _finite(store.attributes.get("scl_inter")),
            "units": store.attributes.get("units"), "source": store.attributes["source"],
            "measured": _finite({key: value for key, value in store.measured.items() if key != "asked"}),
            "warnings": list(store.warnings()), "zarr_format": store.zarr_format,
            "chunks": len(store.grid), "chunk_shape": list(store.grid.chunks), "arrays": sorted(store.arrays),
            "urls": {"nii": f"/nii/{quote(image.path)}", "zarr": group, "array": f"{group}/{layout.IMAGE}",
                     "inr": f"/inr/{quote(image.store)}",
                     "source": f"/source/{quote(image.path)}" if self._has_source(image) else None},
        }  # fmt: skip


def _recorded(outcome: Outcome) -> dict[str, Any]:
    record = ImageRecord.of(outcome)
    return {
        "shape": list(record.shape) or None, "dims": list(record.dims) or None, "dtype": record.dtype or None,
        "quality": _finite(dict(record.quality)), "psnr": _finite(record.psnr), "max_error": _finite(record.max_error),
        "lossless": outcome.measures.get("lossless"), "stored_bytes": record.stored_bytes,
        "source_bytes": record.source_bytes,
    }  # fmt: skip


def _said(store: Store) -> dict[str, Any]:
    """Return the same of a store that is open."""
    measures = store.stated()
    return {
        "shape": list(store.grid.shape), "dims": list(store.dims), "dtype": store.source_dtype.name,
        "quality": _finite(store.promised), "psnr": _finite(measures.psnr), "max_error": _finite(measures.max_error),
        "lossless": measures.lossless, "stored_bytes": store.stored_bytes(),
        "source_bytes": store.attributes["source"].get("bytes"), "spacing": _spacing(store),
    }  # fmt: skip


def _spacing(store: Store) -> list[float] | None:
    """Return the lengths of a voxel along x, y and z in millimetres, as the affine has them."""
    affine = store.attributes.get("affine")
    try:
        found = [math.sqrt(sum(float(row[axis]) ** 2 for row in affine[:3])) for axis in range(3)]
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise StoreError(f"{store.label}: attribute affine is no matrix") from error
    return found if all(map(math.isfinite, found)) else None


def _finite(value: Any) -> Any:
    """Return a value that JSON can have: null for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
