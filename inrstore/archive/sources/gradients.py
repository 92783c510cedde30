"""FSL gradient sidecars (b-values, directions) that lie next to an image."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.errors import SourceError

Floats: TypeAlias = npt.NDArray[np.float64]

MAX_SIDECAR_BYTES = 1 << 24
"""A million directions with twenty digits each fit in less."""


def read_gradients(image: Path, volumes: int | None) -> tuple[Floats | None, Floats | None]:
    """Read b-values and directions of a 4-D image.

    X.bval and X.bvec (or X.bvals, X.bvecs) belong to X.nii.gz, whatever they hold; a bare `bvals` or
    `bvecs` in the same folder belongs to it only if it has an entry for each volume.

    Parameters
    ----------
    image : Path
        The image file.
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
    stem = image.name
    for suffix in (".gz", ".nii"):
        stem = stem.removesuffix(suffix)
    found: list[Floats | None] = []
    for word, rows in (("bval", 1), ("bvec", 3)):
        own = [image.with_name(f"{stem}.{word}"), image.with_name(f"{stem}.{word}s")]
        bare = [image.with_name(f"{word}s"), image.with_name(word)]
        values = None
        for path in own + bare:
            if path.is_file():
                values = _read_table(path, rows, volumes, strict=path in own)
            if values is not None:
                break
        found.append(values)
    bval, bvec = found
    return (None if bval is None else bval[0]), (None if bvec is None else bvec.T)


def _read_table(path: Path, rows: int, volumes: int, *, strict: bool) -> Floats | None:
    """Return a (rows, volumes) table; directions may also lie in the file as (volumes, 3)."""
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise SourceError(f"{path}: larger than {MAX_SIDECAR_BYTES} bytes")
        lines = path.read_text("ascii").replace(",", " ").split("\n")
        table = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: not a table of numbers: {error}") from error
    if len({len(row) for row in table}) > 1:
        raise SourceError(f"{path}: its rows differ in length")
    values = np.array(table, np.float64)
    if rows == 1 and values.size == volumes:
        values = values.reshape(1, volumes)
    elif values.shape == (volumes, rows):
        values = values.T if values.shape != (rows, volumes) else values
    if values.shape != (rows, volumes):
        if not strict:
            return None
        found = " x ".join(map(str, values.shape))
        raise SourceError(f"{path}: {found} numbers where {rows} x {volumes} belong, one column a volume")
    if not np.isfinite(values).all():
        raise SourceError(f"{path}: holds numbers that are not finite")
    return values
