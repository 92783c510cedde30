"""The record of an archive -> a row for each image: who, what, how large, how exact. No store is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inrstore import files
from inrstore.archive.manifest import MANIFEST, read_manifest
from inrstore.archive.outcomes import Outcome
from inrstore.archive.record import Record, archive_place
from inrstore.archive.rules import UK_BIOBANK, suffix_of
from inrstore.files import Place
from inrstore.sources.registry import stem

ENTITIES = {
    "sub": "subject", "ses": "session", "sample": "sample", "task": "task", "tracer": "tracer", "acq": "acquisition",
    "ce": "ceagent", "stain": "staining", "rec": "reconstruction", "dir": "direction", "run": "run", "mod": "modality",
    "echo": "echo", "flip": "flip", "inv": "inversion", "mt": "mtransfer", "part": "part", "proc": "processing",
    "hemi": "hemisphere", "space": "space", "split": "split", "recording": "recording", "chunk": "chunk", "atlas":
    "atlas", "seg": "segmentation", "res": "resolution", "den": "density", "label": "label", "desc": "description",
}  # fmt: skip
"""Short key in a name -> entity (BIDS specification 1.10, appendix "Entities")."""

_BULK = re.compile(r"(\d+)_(\d{5})_(\d+)_(\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """What an archive knows of an image.

    Parameters
    ----------
    path : str
        Of its store, in the archive.
    name : str
        The same under its name in the source.
    entities : dict of str to str
        Entities of BIDS in its name ("subject", "session", "task", ...); of UK Biobank "subject" (the participant),
        "field", "instance" and "array".
    suffix : str
        "dwi", "T1w", "bold"; for UK Biobank by the data field.
    shape : tuple of int
        In the order of `dims`; empty if the record does not say.
    dims : tuple of str
        Names of its axes.
    dtype : str
        Type of its voxels in the source.
    quality : dict
        What was promised: {"psnr": 40.0}, {"lossless": True}.
    psnr : float or None
        Measured, in dB; None if every voxel is exact.
    max_error : float or None
        Largest error of any voxel, in stored units.
    stored_bytes, source_bytes : int
        Of the store, and of its files in the source.
    ratio : float or None
        source_bytes / stored_bytes.
    seal : str
        Digest by which the archive knows the store.
    origin : str
        Name of the source if it came with another archive, else "".
    gone : bool
        Whether the source had it no more when a run last looked.
    """

    path: str
    name: str
    entities: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    dtype: str = ""
    quality: Mapping[str, Any] = field(default_factory=dict)
    psnr: float | None = None
    max_error: float | None = None
    stored_bytes: int = 0
    source_bytes: int = 0
    ratio: float | None = None
    seal: str = ""
    origin: str = ""
    gone: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> ImageRecord:
        """Return the record of an image that was converted."""
        measures, stored, source = outcome.measures, outcome.stored_bytes, outcome.source_bytes
        return cls(
            path=outcome.out, name=outcome.path, entities=entities_of(outcome.key or outcome.path),
            suffix=modality_of(outcome.key) or suffix_of(outcome.path), shape=tuple(measures.get("shape") or ()),
            dims=tuple(measures.get("dims") or ()), dtype=str(measures.get("dtype") or ""),
            quality=dict(measures.get("promised") or {}), psnr=outcome.number("psnr"),
            max_error=outcome.number("max_error"), stored_bytes=stored, source_bytes=source,
            ratio=source / stored if source and stored else None, seal=outcome.digest, origin=outcome.origin,
            gone=outcome.gone,
        )  # fmt: skip

    def get(self, name: str) -> Any:
        """Return an entity, or one of the fields, as text where it is one; "" if the image has none of that name."""
        return self.entities.get(name, getattr(self, name, "") if name in self.__dataclass_fields__ else "")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; the entities are beside the rest."""
        values = asdict(self)
        entities = values.pop("entities")
        return {"path": values.pop("path"), **entities, **values}


def entities_of(path: str) -> dict[str, str]:
    """Return what the name of a file says by the rules of BIDS, or the zip it lies in by those of UK Biobank.

    Parameters
    ----------
    path : str
        "sub-01/dwi/sub-01_acq-b_dwi.nii.gz", "1000001_20250_2_0.zip:dMRI/raw/AP.nii.gz".
    """
    found: dict[str, str] = {}
    for folder in re.split("[/:]", path)[:-1]:
        key, dash, value = folder.partition("-")
        if dash and value and key in ("sub", "ses"):
            found[ENTITIES[key]] = value
        bulk = _BULK.match(folder)
        if bulk:
            found |= dict(zip(("subject", "field", "instance", "array"), bulk.groups(), strict=True))
    for part in stem(re.split("[/:]", path)[-1]).split("_"):
        key, dash, value = part.partition("-")
        if dash and value and key in ENTITIES:
            found[ENTITIES[key]] = value
    return found


def modality_of(path: str) -> str:
    """Return the modality of an image of UK Biobank by the data field of its zip, "" if it is none."""
    return UK_BIOBANK.get(entities_of(path).get("field", ""), "")


def read_images(where: str) -> tuple[Place, list[ImageRecord]]:
    """Return an archive and its images, in the order of their paths.

    Parameters
    ----------
    where : str
        Path or URL.

    Raises
    ------
    StoreError
        If it is no archive, or its record is damaged.
    """
    place = files.place(where)
    record = Record(archive_place(where))
    record.job()
    found = {outcome.out: ImageRecord.of(outcome) for outcome in record.outcomes() if outcome.status == "converted"}
    if place.size(MANIFEST) is not None:
        for path, name, size, seal in _listed(place):  # a journal can be lost
            if path not in found:
                found[path] = ImageRecord(path=path, name=name, entities=entities_of(name), suffix=suffix_of(name),
                                          stored_bytes=size, seal=seal)  # fmt: skip
    return place, [found[path] for path in sorted(found, key=lambda path: path.split("/"))]


def _listed(place: Place) -> Iterator[tuple[str, str, int, str]]:
    for entry in read_manifest(place):
        if entry.kind == "store":
            outcome = Outcome(kind="image", key=entry.key, out=entry.out, status="converted")
            yield entry.out, outcome.path, entry.bytes, entry.digest
