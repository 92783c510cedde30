"""Sidecars of an image: FSL gradients (b-values, directions) beside it or above it in a BIDS tree, and its JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import FileTooLargeError, SourceError
from inrstore.files import Place, read, read_text
from inrstore.sources.registry import stem

Floats: TypeAlias = npt.NDArray[np.float64]

_ROWS = {"bval": 1, "bvec": 3}
SIDECARS = (".json", ".bval", ".bvec")
"""Endings of the sidecars that a store of one image keeps, in their order there."""
_ENTITY = re.compile(r"[A-Za-z]+-[A-Za-z0-9+]+")
_MAX_ENTITIES = 8
"""Free entities of a BIDS name whose subsets are looked for; more are none of BIDS."""


def read_gradients(place: Place, key: str, volumes: int | None) -> tuple[Floats | None, Floats | None]:
    """Read b-values and directions of a 4-D image.

    In this order: X.bval(s), X_bval(s) beside X.nii.gz belong to it, whatever they hold (FSL, dcm2niix, UK Biobank's
    raw/, HCP's unprocessed/). A bare `bvals` or `bval` in the same folder (FSL, UK Biobank's dMRI/dMRI/, HCP's
    T1w/Diffusion/) and a file that BIDS' inheritance principle gives to the image belong to it only if they have an
    entry for each volume. The same with bvec.

    `X.eddy_rotated_bvecs` is never taken: it holds for the image that `eddy` wrote and no name says which that is,
    and every program that reads X reads `bvecs` unless told otherwise.

    Parameters
    ----------
    place, key : Place, str
        The image.
    volumes : int or None
        Its number of volumes; None for an image that is not 4-D, which has no gradients.

    Returns
    -------
    bval : ndarray or None
        (t,), s/mm².
    bvec : ndarray or None
        (t, 3), in the frame of the sidecar.

    Raises
    ------
    SourceError
        Naming the sidecar that cannot be read or does not fit the image.
    """
    if volumes is None:
        return None, None
    (_, bval), (_, bvec) = (_search(place, key, word, volumes) for word in _ROWS)
    return (None if bval is None else bval[0]), (None if bvec is None else bvec.T)


def read_sidecars(place: Place, key: str, volumes: int | None) -> dict[str, bytes]:
    """Read the sidecars of an image as they are: its JSON, and the files that its gradients come from.

    Beside an image without gradients only files that bear its name are its own.

    Parameters
    ----------
    place, key, volumes : Place, str, int or None
        As for `read_gradients`.

    Returns
    -------
    dict of str to bytes
        By the ending that goes with the stem of the image, of those in `SIDECARS`.

    Raises
    ------
    SourceError
        Naming the sidecar that cannot be read, does not fit the image, or is larger than any of its kind.
    """
    found = {".json": stem(key) + ".json"} if place.size(stem(key) + ".json") is not None else {}
    for word in _ROWS:
        name = _search(place, key, word, volumes)[0]
        if name is not None:
            found[f".{word}"] = name
    sidecars = {}
    for ending, name in found.items():
        try:
            sidecars[ending] = read(place, name, limits.MAX_SIDECAR_BYTES)
        except (OSError, FileTooLargeError) as error:
            raise SourceError(f"{place.label(name)}: cannot be read: {error}") from error
    return sidecars


def _search(place: Place, key: str, word: str, volumes: int | None) -> tuple[str | None, Floats | None]:
    """Return the sidecar that belongs to an image, and its table; without a number of volumes it is not read."""
    for sidecar, own in _candidates(place, key, word):
        if place.size(sidecar) is None:
            continue
        if volumes is None:
            if own:
                return sidecar, None
            continue
        values = _read_table(place, sidecar, _ROWS[word], volumes, strict=own)
        if values is not None:
            return sidecar, values
    return None, None


def companions(place: Place, key: str) -> tuple[str, ...]:
    """Return the sidecars of an image that are there: its JSON, and those its gradients are looked for in.

    Parameters
    ----------
    place, key : Place, str
        The image; it is not read, so a bare `bvals` counts even if it is another image's.
    """
    found = [stem(key) + ".json"] if place.size(stem(key) + ".json") is not None else []
    for word in _ROWS:
        there = (name for name, _ in _candidates(place, key, word) if place.size(name) is not None)
        found += [name for name in [next(there, None)] if name is not None]
    return tuple(found)


def _candidates(place: Place, key: str, word: str) -> Iterator[tuple[str, bool]]:
    """Yield where a sidecar may be, nearest first, and whether its name says that it is this image's own."""
    base = stem(key)
    for name in (f"{base}.{word}", f"{base}.{word}s", f"{base}_{word}", f"{base}_{word}s"):
        yield name, True
    folder, _, name = base.rpartition("/")
    for name in (f"{word}s", word):
        yield f"{folder}/{name}" if folder else name, False
    yield from ((sidecar, False) for sidecar in _inherited(place, base, word))


def _inherited(place: Place, base: str, word: str) -> Iterator[str]:
    """Yield the names that BIDS' inheritance principle allows, from the image's folder up to the top of its dataset.

    Entities of a sidecar are a subset of the image's, in the same order, and of the same suffix. Within a folder the
    name with more entities comes first. Names are tried, not listed: to list a folder of a bucket takes longer.
    """
    folders, _, name = base.rpartition("/")
    *entities, suffix = name.split("_")
    if suffix != "dwi" or not entities or not all(map(_ENTITY.fullmatch, entities)):
        return
    here = folders.split("/") if folders else []
    while True:
        # A folder sub-01/ses-2 holds files of that subject and session alone, so their names must say so.
        fixed = [part for part in here if part in entities]
        free = [entity for entity in entities if entity not in fixed and not entity.startswith(("sub-", "ses-"))]
        for count in range(min(len(free), _MAX_ENTITIES), -1, -1):
            for chosen in combinations(free[:_MAX_ENTITIES], count):
                kept = [entity for entity in entities if entity in fixed or entity in chosen]
                yield "/".join([*here, "_".join([*kept, f"{suffix}.{word}"])])
        if not here or place.size("/".join([*here, "dataset_description.json"])) is not None:
            return
        here = here[:-1]


def _read_table(place: Place, key: str, rows: int, volumes: int, *, strict: bool) -> Floats | None:
    """Return a (rows, volumes) table; directions may also lie in the file as (volumes, 3)."""
    label = place.label(key)
    lines = read_text(place, key, limits.MAX_SIDECAR_BYTES).replace(",", " ").split("\n")
    try:
        table = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        raise SourceError(f"{label}: not a table of numbers: {error}") from error
    if len({len(row) for row in table}) > 1:
        raise SourceError(f"{label}: its rows differ in length")
    values = np.array(table, np.float64)
    if rows == 1 and values.size == volumes:
        values = values.reshape(1, volumes)
    elif values.shape == (volumes, rows):
        values = values.T if values.shape != (rows, volumes) else values
    if values.shape != (rows, volumes):
        if not strict:
            return None
        found = " x ".join(map(str, values.shape))
        raise SourceError(f"{label}: {found} numbers where {rows} x {volumes} belong, one column a volume")
    if not np.isfinite(values).all():
        raise SourceError(f"{label}: holds numbers that are not finite")
    return values
