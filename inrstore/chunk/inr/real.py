"""An integer network -> the real function that it rounds (specification section 7.3 without its roundings).

Inputs are real numbers, sums are float64, and an activation is the function that its integers stand for: the sine is a
sine, not a table. At integer inputs the outputs differ from the decoder's by what that rounds on the way. Derivatives
are analytic, carried forward beside the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inrstore.chunk.inr.layers import AMPLITUDE, UNIT_BITS
from inrstore.chunk.inr.network import Network

Floats = npt.NDArray[np.float64]

_BLOCK = 512  # points at a time: a few arrays of 64 units then stay in the cache of a core
_DEGREE = 6


@dataclass(frozen=True)
class Real:
    """An activation as a function of real numbers, -1..1 where integers are -1023..1023.

    Parameters
    ----------
    whole : float
        z of the integer network for an argument of 1.
    shift : float
        Added to every argument beforehand, with the bias.
    value : callable
        Arguments, which it may overwrite, and an array to work in -> values, in either.
    slope : callable
        Arguments -> derivatives, in a new array.
    """

    whole: float
    shift: float
    value: Callable[[Floats, Floats], Floats]
    slope: Callable[[Floats], Floats]


@lru_cache(maxsize=1)
def _quarter() -> tuple[float, ...]:
    """Return coefficients of sin(2 pi v) / v in v^2, for v in -1/4..1/4; the error of the sine is below 1e-13."""
    from numpy.polynomial import Chebyshev, Polynomial

    nodes = (np.cos((np.arange(200) + 0.5) * np.pi / 200) + 1) / 32
    roots = np.sqrt(nodes)
    fitted = Chebyshev.fit(nodes, np.sin(2 * np.pi * roots) / roots, _DEGREE, domain=[0, 1 / 16])
    return tuple(float(value) for value in fitted.convert(kind=Polynomial).coef)


def _cosine(turns: Floats, work: Floats) -> Floats:
    """Return cos(2 pi turns) in `work`; the turns are overwritten.

    numpy has a vectorised sine for float32 alone; this one takes a sixth of the time of its float64 one.
    """
    np.rint(turns, out=work)
    turns -= work
    np.abs(turns, out=turns)
    np.subtract(0.25, turns, out=turns)  # cos(2 pi w) = sin(2 pi (1/4 - w))
    square, coefficients = turns * turns, _quarter()
    np.multiply(square, coefficients[-1], out=work)
    for value in coefficients[-2:0:-1]:
        work += value
        work *= square
    work += coefficients[0]
    work *= turns
    return work


def _cosine_slope(turns: Floats) -> Floats:
    found = _cosine(turns - 0.25, np.empty_like(turns))
    found *= -2 * math.pi
    return found


def _clamped(low: float) -> Real:
    def value(sums: Floats, work: Floats) -> Floats:
        return np.clip(sums, low, 1.0, out=sums)

    def slope(sums: Floats) -> Floats:
        return ((sums > low) & (sums < 1.0)).astype(np.float64)

    return Real(float(AMPLITUDE << UNIT_BITS), 0.0, value, slope)


def _tanh(sums: Floats, work: Floats) -> Floats:
    return np.tanh(sums, out=work)


def _tanh_slope(sums: Floats) -> Floats:
    return 1.0 - np.square(np.tanh(sums))


REAL = {
    "linear": _clamped(-1.0),
    "sine": Real(2.0**32, -0.25, _cosine, _cosine_slope),
    "relu": _clamped(0.0),
    "tanh": Real(2.0**29, 0.0, _tanh, _tanh_slope),
}
"""By name, as in `layers.BY_NAME`."""


@dataclass(frozen=True, eq=False)
class RealLayer:
    """One hidden layer in real numbers.

    Parameters
    ----------
    name : str
        Of its activation.
    weights : ndarray of float64, shape (units, inputs)
    biases : ndarray of float64, shape (units,)
    """

    name: str
    weights: Floats
    biases: Floats


@dataclass(frozen=True, eq=False)
class RealNetwork:
    """The numbers of a network as real ones: layers with outputs of -1..1, and a linear read-out.

    Parameters
    ----------
    layers : tuple of RealLayer
        Arguments of a sine are turns.
    readout : ndarray of float64, shape (outputs, units)
    offsets : ndarray of float64, shape (outputs,)
    """

    layers: tuple[RealLayer, ...]
    readout: Floats
    offsets: Floats

    @classmethod
    def of(cls, network: Network) -> RealNetwork:
        """Return the numbers that the integers of a network stand for."""
        layers, unit = [], 1.0  # the integer for a real input of 1
        for layer in network.layers:
            whole = REAL[layer.activation.name].whole
            weights = layer.weights.astype(np.float64) * (layer.multiplier * unit / whole)
            biases = layer.biases.astype(np.float64) * (network.bias_multiplier / whole)
            layers.append(RealLayer(layer.activation.name, weights, biases))
            unit = float(AMPLITUDE)
        gains = network.gains.astype(np.float64)[:, None] * (AMPLITUDE / 2.0**network.shift)
        return cls(tuple(layers), network.readout.astype(np.float64) * gains, network.offsets / 16.0)

    @property
    def inputs(self) -> int:
        """Numbers that it takes at each point."""
        return int(self.layers[0].weights.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        arrays = [array for layer in self.layers for array in (layer.weights, layer.biases)]
        return sum(array.nbytes for array in (*arrays, self.readout, self.offsets))

    def __call__(
        self, inputs: Floats, outputs: slice | npt.NDArray[np.intp] = slice(None), along: Sequence[int] = ()
    ) -> tuple[Floats, Floats]:
        """Evaluate the function at points.

        Parameters
        ----------
        inputs : ndarray of float64, shape (inputs, points)
        outputs : slice or ndarray of int
            Those wanted.
        along : sequence of int
            Inputs by which derivatives are wanted.

        Returns
        -------
        values : ndarray of float64, shape (outputs, points)
        slopes : ndarray of float64, shape (outputs, len(along), points)
        """
        readout, offsets = self.readout[outputs], self.offsets[outputs, None]
        points, axes = inputs.shape[1], list(along)
        values, slopes = np.empty((len(readout), points)), np.empty((len(readout), len(axes), points))
        room: dict[tuple[str, int, int], Floats] = {}
        for begin in range(0, points, _BLOCK):
            block = slice(begin, min(begin + _BLOCK, points))
            hidden, moved = self._hidden(np.ascontiguousarray(inputs[:, block]), axes, room)
            found = readout @ hidden
            found += offsets
            values[:, block] = found
            if moved is not None:
                slopes[:, :, block] = (readout @ moved).reshape(len(readout), len(axes), -1)
        return values, slopes

    def _hidden(
        self, values: Floats, axes: list[int], room: dict[tuple[str, int, int], Floats]
    ) -> tuple[Floats, Floats | None]:
        """Return the last layer's outputs, (units, points), and derivatives, (units, axes x points)."""
        points, moved = values.shape[1], None
        for layer in self.layers:
            real, units = REAL[layer.name], len(layer.biases)
            sums, work = (_place(room, name, units, points) for name in ("sums", "work"))
            if sums is values:  # the layer before left its outputs there
                sums = _place(room, "other", units, points)
            if work is values:
                work = _place(room, "other", units, points)
            np.matmul(layer.weights, values, out=sums)
            sums += (layer.biases + real.shift)[:, None]
            if axes:
                inner = _place(room, "inner", units, len(axes) * points)
                if inner is moved:  # which is read while the other is written
                    inner = _place(room, "outer", units, len(axes) * points)
                if moved is None:
                    inner.reshape(units, len(axes), points)[:] = layer.weights[:, axes, None]
                else:
                    np.matmul(layer.weights, moved, out=inner)
                moved = inner
                moved.reshape(units, len(axes), points)[:] *= real.slope(sums)[:, None, :]
            values = real.value(sums, work)
        return values, moved


def _place(room: dict[tuple[str, int, int], Floats], name: str, units: int, points: int) -> Floats:
    """Return memory that is made once: arrays of this size cost more to get than to fill."""
    key = name, units, points
    if key not in room:
        room[key] = np.empty((units, points))
    return room[key]
