"""Data type codes of the frame (specification section 2.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, CorruptChunkError

CODES = {
    1: "i1", 2: "i2", 3: "i4", 4: "i8",
    5: "u1", 6: "u2", 7: "u4", 8: "u8",
    9: "f2", 10: "f4", 11: "f8",
    12: "b1",
}  # fmt: skip
BIG_ENDIAN = 0x80
FORTRAN = 0x40
"""Memory layout in which Zarr version 2 expects the decoded array; the values are coded in C order always."""
_BY_NAME = {name: code for code, name in CODES.items()}


def code_of(dtype: np.dtype[Any]) -> int:
    """Return the code byte of a numpy dtype.

    Raises
    ------
    ConfigurationError
        For dtypes the format does not hold (complex, structured, strings, dates, long double).
    """
    code = _BY_NAME.get(f"{dtype.kind}{dtype.itemsize}")
    if code is None:
        raise ConfigurationError(f"dtype {dtype} is not supported; known are {', '.join(_BY_NAME)}")
    return code | (BIG_ENDIAN if dtype.newbyteorder("<") != dtype else 0)


def dtype_of(code: int) -> np.dtype[Any]:
    """Return the numpy dtype of a code byte, byte order included."""
    name = CODES.get(code & ~BIG_ENDIAN)
    if name is None or (code & BIG_ENDIAN and name[1] == "1"):
        raise CorruptChunkError("dtype", f"unknown code {code}")
    return np.dtype(name).newbyteorder(">" if code & BIG_ENDIAN else "<")


def little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in little-endian byte order, in which all arithmetic of the format is defined."""
    return dtype.newbyteorder("<")


def bits_dtype(itemsize: int) -> np.dtype[Any]:
    """Return the unsigned integer dtype of that many bytes."""
    return np.dtype(f"<u{itemsize}")


def bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View a little-endian array as unsigned integers of the same width."""
    return array.view(bits_dtype(array.dtype.itemsize))


def is_short(dtype: np.dtype[Any]) -> bool:
    """Return whether values are numbers of at most four bytes: what the lossless modes with a model hold."""
    return dtype.kind in "iuf" and dtype.itemsize <= 4


def ordered(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Map a little-endian array to unsigned integers of the same width in the same order, bit for bit."""
    pattern = bits(array).copy()
    top = pattern.dtype.type(1 << (8 * array.dtype.itemsize - 1))
    if array.dtype.kind == "i":
        pattern ^= top
    elif array.dtype.kind == "f":
        pattern ^= np.where(pattern & top, ~pattern.dtype.type(0), top)
    return pattern


def unordered(pattern: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Undo `ordered` in place and return a view of `dtype`."""
    top = pattern.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "i":
        pattern ^= top
    elif dtype.kind == "f":
        pattern ^= np.where(pattern & top, top, ~pattern.dtype.type(0))
    return pattern.view(dtype)


def check_outputs(low: int, high: int, exponent: int, dtype: np.dtype[Any], mode: str) -> None:
    """Refuse outputs low..high times 2^exponent that the type does not hold (section 5); errors name the mode."""
    if low > high:
        raise CorruptChunkError(f"{mode}.low", f"{low} > {high}")
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        fits = abs(exponent) <= 100 and max(abs(low), abs(high)) * 2.0**exponent <= most
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        fits = 0 <= exponent <= 40 and info.min <= low << exponent and high << exponent <= info.max
    else:
        raise CorruptChunkError("mode", f"a {mode} cannot give {dtype}")
    if not fits:
        raise CorruptChunkError(f"{mode}.exponent", f"{low}..{high} times 2^{exponent} leaves {dtype}")
