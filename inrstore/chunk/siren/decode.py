"""Bytes -> values of chunk mode siren (specification sections 5 to 7): the network alone knows how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import siren


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    return decode_part(reader, dtype, box, [range(n) for n in box])


def decode_part(
    reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], wanted: Sequence[range]
) -> npt.NDArray[Any]:
    """Return the values at the wanted positions along each axis of the box; no others are made."""
    return siren.evaluate(siren.read(reader, dtype, box), dtype, box, wanted)


def describe(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> dict[str, Any]:
    """Return layers, width, channels, activations, parameters, and bits for each, of a payload's network."""
    size = reader.remaining
    described = siren.read(reader, dtype, box).describe()
    return {**described, "bits_per_parameter": round(8 * size / max(1, described["parameters"]), 2)}
