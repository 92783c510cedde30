"""The checks of numcodecs for its own codecs, on ours; `tools/peers_suites.py` runs it with numcodecs' `common`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from common import (  # type: ignore[import-not-found]  # of numcodecs' tests
    check_config,
    check_encode_decode,
    check_encode_decode_array,
    check_err_decode_object_buffer,
    check_err_encode_object_buffer,
    check_repr,
)

from inrstore.codecs import InrNumcodec

CODECS = [InrNumcodec(lossless=True), InrNumcodec(lossless=True, preset="fast")]
ARRAYS = [
    np.arange(1000, dtype="i4"),
    np.linspace(1000, 1001, 1000, dtype="f8"),
    np.random.default_rng(0).normal(loc=1000, scale=1, size=(100, 10)),
    np.random.default_rng(1).integers(0, 2, size=1000, dtype=bool).reshape(100, 10, order="F"),
    np.random.default_rng(2).integers(0, 200, size=1000, dtype="u1").astype("i1"),
    np.random.default_rng(3).integers(0, 2**60, size=1000, dtype="u8").view("M8[ns]"),
    np.random.default_rng(3).integers(0, 2**60, size=1000, dtype="u8").view("m8[ns]"),
    np.random.default_rng(4).integers(0, 2**25, size=1000, dtype="u8").view("M8[m]"),
    np.random.default_rng(4).integers(-(2**63), -(2**63) + 20, size=1000, dtype="i8").view("m8[m]"),
]


@pytest.mark.parametrize("array, codec", list(itertools.product(ARRAYS, CODECS)))
def test_encode_decode(array: Any, codec: Any) -> None:
    """Every kind of buffer goes in and comes out."""
    check_encode_decode(array, codec)


@pytest.mark.parametrize("array", [a for a in ARRAYS if a.dtype.kind not in "Mm"])
def test_encode_decode_array(array: Any) -> None:
    """Arrays keep their dtype."""
    check_encode_decode_array(array, CODECS[0])


def test_config() -> None:
    """A configuration gives the codec back."""
    for codec in (*CODECS, InrNumcodec(rmse=2.0, scale=[1, 2]), InrNumcodec(max_error=2.0, chunk_shape=(4,))):
        check_config(codec)


def test_repr() -> None:
    """The text is the call."""
    import numcodecs

    numcodecs.InrNumcodec = InrNumcodec
    import common

    common.InrNumcodec = InrNumcodec
    check_repr("InrNumcodec(lossless=True)")
    check_repr("InrNumcodec(max_error=2.0, chunk_shape=[4, 5], dtype='<i2')")


def test_errors() -> None:
    """Objects are a TypeError."""
    check_err_decode_object_buffer(CODECS[0])
    check_err_encode_object_buffer(CODECS[0])
