"""Layers of an integer network: the table of activations, and the bounds that keep sums exact (section 7.2, 7.3).

A layer makes z = a M + b B of the product-sum a of its inputs, with multipliers M and B, and y = f(z) of that, an
integer in -1023..1023. Which f is data: a new one is an entry of `ACTIVATIONS`.

A float32 product-sum of integers is exact in any order, on any number of threads and on any device, as long as
every partial sum stays below 2^24; z is exact in float64 below 2^53, or taken modulo 2^32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import LimitExceededError

AMPLITUDE = 1023
"""Largest magnitude of a layer's output."""
PHASE_BITS = 12
UNIT_BITS = 24
"""z of 2^24 is an output of 1, for activations that count in whole units rather than in turns."""

Ints = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Activation:
    """What a layer does to its sums z.

    Parameters
    ----------
    code : int
        As it stands in a network's bytes.
    name : str
    wraps : bool
        z is an unsigned 32-bit number that wraps. If not, it is an exact integer below 2^52, held in float64.
    apply : callable
        Takes z (uint32 or float64; it may be overwritten), an array of intp to work in, and the float32 array for
        the outputs, all of one shape.
    """

    code: int
    name: str
    wraps: bool
    apply: Callable[[npt.NDArray[Any], npt.NDArray[np.intp], npt.NDArray[np.float32]], None]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which z is held."""
        return np.dtype(np.uint32 if self.wraps else np.float64)


# ---- the table ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def sine_table() -> npt.NDArray[np.float32]:
    """Return round(1023 sin(2 pi (p + 1/2) / 4096)) for p = 0..4095, as integers held in float32.

    The half centres each entry on the phases that are cut off to its index. The integers do not depend on the
    last bits of a libm: no entry is closer than 1e-4 to a rounding tie.
    """
    turn = (np.arange(1 << PHASE_BITS) + 0.5) / (1 << PHASE_BITS)
    table: npt.NDArray[np.float32] = np.rint(AMPLITUDE * np.sin(2 * np.pi * turn)).astype(np.float32)
    table.setflags(write=False)
    return table


def _sine(z: npt.NDArray[Any], index: npt.NDArray[np.intp], out: npt.NDArray[np.float32]) -> None:
    np.right_shift(z, np.uint32(32 - PHASE_BITS), out=z)
    np.copyto(index, z)
    np.take(sine_table(), index, out=out, mode="wrap")


@lru_cache(maxsize=1)
def tanh_table() -> npt.NDArray[np.float32]:
    """Return round(1023 tanh((p - 2048 + 1/2) / 512)) for p = 0..4095, as integers held in float32.

    They run over +-4, beyond which tanh is 1 but for less than one step. No entry is closer than 9e-5 to a tie.
    """
    place = (np.arange(1 << PHASE_BITS) - (1 << (PHASE_BITS - 1)) + 0.5) / (1 << (PHASE_BITS - 3))
    table: npt.NDArray[np.float32] = np.rint(AMPLITUDE * np.tanh(place)).astype(np.float32)
    table.setflags(write=False)
    return table


def _tanh(z: npt.NDArray[Any], index: npt.NDArray[np.intp], out: npt.NDArray[np.float32]) -> None:
    half = 1 << (PHASE_BITS - 1)
    z *= 2.0 ** (PHASE_BITS - 32)  # a power of two: exact
    np.floor(z, out=z)
    np.clip(z, -half, half - 1, out=z)
    z += half
    np.copyto(index, z, casting="unsafe")
    np.take(tanh_table(), index, out=out, mode="clip")


def _clamped(low: int) -> Callable[[npt.NDArray[Any], npt.NDArray[np.intp], npt.NDArray[np.float32]], None]:
    def apply(z: npt.NDArray[Any], index: npt.NDArray[np.intp], out: npt.NDArray[np.float32]) -> None:
        z *= 2.0**-UNIT_BITS  # a power of two: exact
        z += 0.5
        np.floor(z, out=z)
        np.clip(z, low, AMPLITUDE, out=out, casting="same_kind")

    return apply


LINEAR = Activation(0, "linear", False, _clamped(-AMPLITUDE))
SINE = Activation(1, "sine", True, _sine)
RELU = Activation(2, "relu", False, _clamped(0))
TANH = Activation(3, "tanh", False, _tanh)
ACTIVATIONS = {a.code: a for a in (LINEAR, SINE, RELU, TANH)}
"""By their code in a network's bytes."""
BY_NAME = {a.name: a for a in ACTIVATIONS.values()}


# ---- layers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Layer:
    """One hidden layer.

    Parameters
    ----------
    activation : Activation
    weights : ndarray of int, shape (units, inputs)
    biases : ndarray of int, shape (units,)
    multiplier : int
        M, unsigned 32-bit: z for one unit of the product-sum.
    """

    activation: Activation
    weights: Ints
    biases: Ints
    multiplier: int


def _row_sums(weights: Ints, reach: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the largest magnitude of each row's product-sum; one bound for all inputs takes no wide copy of them."""
    magnitudes, most = np.abs(weights), np.asarray(reach, np.int64)
    if most.ndim:
        return np.asarray(magnitudes.astype(np.int64) @ most)
    return np.asarray(magnitudes.sum(axis=1, dtype=np.int64) * most)


def check_products(weights: Ints, reach: npt.ArrayLike, field: str) -> None:
    """Refuse a matrix (out, in) whose products with inputs of magnitudes up to `reach` could leave exact float32."""
    sums = _row_sums(weights, reach)
    if sums.size and int(sums.max()) >= limits.EXACT_FLOAT32:
        raise LimitExceededError(field, "the sum of a row's magnitudes leaves the range of exact float32")


def check_sums(layer: Layer, bias_multiplier: int, reach: npt.ArrayLike, field: str) -> None:
    """Refuse a layer whose z, if it does not wrap, could reach 2^52 with inputs of magnitudes up to `reach`."""
    if layer.activation.wraps:
        return
    sums = _row_sums(layer.weights, reach)
    biases = np.abs(layer.biases.astype(np.int64)).tolist()
    if any(s * layer.multiplier + b * bias_multiplier >= limits.EXACT_SUM
           for s, b in zip(sums.tolist(), biases, strict=True)):  # fmt: skip
        raise LimitExceededError(field, "a sum of a layer leaves the range of exact float64")
