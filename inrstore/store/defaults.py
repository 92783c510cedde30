"""What an image is, and the quality that it gets if nobody names one: below its noise, or every bit.

A PSNR means another thing in each scan: the noise lies 18 dB below the range of one, and 60 below that of another. So
the default is a part of the noise, small enough for what is computed from an image of its kind (decision 18 has the
measurements), put as the rmse that this is. An image of which nothing tells what it is keeps every bit, and so does one
whose noise is lost in the rounding to integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError
from inrstore.evaluate.fmri import LEAST_VOLUMES
from inrstore.sources import Source
from inrstore.store import layout
from inrstore.store.quality import Quality, noise_of

Kind: TypeAlias = Literal["dmri", "fmri", "structural", "ct", "image"]
KINDS: tuple[Kind, ...] = ("dmri", "fmri", "structural", "ct", "image")

TIMES: Mapping[Kind, float] = {"dmri": 0.3, "fmri": 0.2, "structural": 0.2, "ct": 0.5}
"""Error of the default over the noise."""
_ROUNDING = 0.5
"""Stored units; an error below it is no smaller in a file of integers than none."""
_SUFFIXES: Mapping[str, Kind] = {
    "dwi": "dmri", "bold": "fmri", "T1w": "structural", "T2w": "structural", "FLAIR": "structural", "PDw":
    "structural", "T2starw": "structural", "UNIT1": "structural", "inplaneT1": "structural", "ct": "ct", "CT": "ct",
}  # fmt: skip


def kind_of(image: Source, suffix: str = "") -> Kind:
    """Return what an image is, by its gradients, its BIDS suffix, its sidecar, and its shape, in this order."""
    four = image.voxels.ndim == 4
    if image.labels or not image.spatial or image.voxels.dtype.kind not in "iuf":
        return "image"
    if four and image.bval is not None and image.bvec is not None:
        return "dmri"
    known = _SUFFIXES.get(suffix) or ("ct" if _modality(image) == "CT" else None)
    if known == "dmri" or (known == "fmri" and not four) or (known in ("structural", "ct") and four):
        known = None
    if known is None and not four and image.voxels.ndim == 3 and image.inter <= -900:  # -1024: stored HU
        known = "ct"
    if known is None and four and len(image.voxels) >= LEAST_VOLUMES and image.units.get("time") in ("sec", "msec"):
        step = image.voxel_size[3] if len(image.voxel_size) > 3 else 0.0
        known = "fmri" if step > 0 else None
    return known or "image"


def _modality(image: Source) -> str:
    """Return the modality that the JSON sidecar names, "" if none does."""
    try:
        return str(layout.decode_json(image.sidecars[".json"]).get("Modality", ""))
    except (KeyError, ValueError, AttributeError):
        return ""


def quality_for(
    image: Source, suffix: str, inside: npt.NDArray[np.bool_] | None = None
) -> tuple[Quality, dict[str, Any]]:
    """Return the default quality of an image, and why it is that, as a store says it.

    Parameters
    ----------
    image : Source
    suffix : str
        BIDS suffix of its name, or the modality that is known of it otherwise.
    inside : ndarray of bool, optional
        Its mask, as `inrstore.store.masks` has it.

    Returns
    -------
    quality : Quality
    why : dict
        "kind"; the "noise" in stored units where it was measured, and if the quality comes from it "times", the error
        over it.
    """
    kind = kind_of(image, suffix)
    if kind not in TIMES or image.voxels.ndim < 3:
        return Quality(lossless=True), {"kind": kind}
    try:
        found = noise_of(image, image.voxels.ndim - 3, inside)
    except ConfigurationError:
        return Quality(lossless=True), {"kind": kind}
    noise, times = float(np.median(found.sigma)), TIMES[kind]
    why: dict[str, Any] = {"kind": kind, "noise": float(f"{noise:.4g}")}
    # An rmse counts every voxel; where background was set to 0 there is no error, and it may all be elsewhere.
    kept = found.counted.size if inside is None else int(np.count_nonzero(inside))
    share = np.count_nonzero(found.counted) / max(1, kept)
    rmse = float(f"{times * noise * math.sqrt(share):.4g}")
    if rmse <= (_ROUNDING if image.voxels.dtype.kind in "iu" else 0.0):
        return Quality(lossless=True), why
    return Quality(rmse=rmse), {**why, "times": times}
