"""The integer network: a value that a mode holds, composes or shares (specification section 7).

Inputs, layers and activations are data; one evaluator takes any integer inputs to integer outputs. Bytes are made in
`bitstream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.inr.layers import AMPLITUDE, Ints, Layer, check_products, check_sums
from inrstore.errors import LimitExceededError

MIN_SHIFT, MAX_SHIFT = 4, 34
_BLOCK = 4096  # points evaluated at a time: activations of 64 units then stay in the cache
_ROOM = 1 << 19  # values of one layer held at a time, however wide


@dataclass(frozen=True)
class Coordinates:
    """Inputs are a place on a grid: for each axis half voxels from the centre (section 7.1, kind 0).

    Parameters
    ----------
    count : int
        Axes, 0..8. How long they are is for the mode to say.
    """

    count: int


@dataclass(frozen=True)
class Values:
    """Inputs are integers that the mode which holds the network gives (section 7.1, kind 1).

    Parameters
    ----------
    count : int
        1..4096.
    magnitude : int
        None of them is larger, 1..32767.
    """

    count: int
    magnitude: int


Inputs = Coordinates | Values


@dataclass(frozen=True, eq=False)
class Network:
    """The integers of one network; exactly what its bytes hold.

    Parameters
    ----------
    inputs : Coordinates or Values
    layers : tuple of Layer
        Hidden layers, at least one.
    bias_multiplier : int
        B, unsigned 32-bit: z for one unit of a bias, in every layer.
    readout : ndarray of int, shape (outputs, units)
        The linear last layer.
    gains : ndarray of int64, shape (1,) or (outputs,)
        Output units for one unit of the read-out sum, times 2^shift; see `pack_gain`.
    offsets : ndarray of int, shape (outputs,)
        Added to the outputs, in sixteenths.
    shift : int
        4..34.
    """

    inputs: Inputs
    layers: tuple[Layer, ...]
    bias_multiplier: int
    readout: Ints
    gains: Ints
    offsets: Ints
    shift: int

    @property
    def outputs(self) -> int:
        """Numbers at each point."""
        return len(self.readout)

    @property
    def parameters(self) -> int:
        """Coded weights and biases."""
        return sum(layer.weights.size + layer.biases.size for layer in self.layers) + self.readout.size

    def check(self) -> None:
        """Raise `LimitExceededError` unless all sums stay exact, whatever the inputs (section 7.2).

        For coordinates, those of the first layer depend on the lengths of the axes: see `check_reach`.
        """
        if isinstance(self.inputs, Values):
            check_products(self.layers[0].weights, self.inputs.magnitude, "network.weights")
            self.check_reach(np.full(self.inputs.count, self.inputs.magnitude))
        for layer in self.layers[1:]:
            check_products(layer.weights, AMPLITUDE, "network.weights")
            check_sums(layer, self.bias_multiplier, AMPLITUDE, "network.weights")
        check_products(self.readout, AMPLITUDE, "network.weights")
        most = max(int(self.offsets.max()), -int(self.offsets.min()))
        if most << (self.shift - 4) >= limits.EXACT_SUM:
            raise LimitExceededError("network.offsets", f"{most} leaves the range of exact float64")

    def check_reach(self, reach: npt.ArrayLike) -> None:
        """Raise `LimitExceededError` unless the first layer is exact for inputs of these magnitudes, (inputs,)."""
        check_sums(self.layers[0], self.bias_multiplier, reach, "network.weights")


# ---- gains: 12 significant bits in 16 ----------------------------------------------------------------------


def pack_gain(gain: float) -> int:
    """Return the 16-bit code of the short number nearest to a number of at least 0, below 2^27 (section 7.1)."""
    exponent = max(0, int(np.frexp(gain)[1]) - 12)
    mantissa = round(gain / 2.0**exponent)
    if mantissa >= 4096:
        exponent, mantissa = exponent + 1, 2048
    return exponent << 12 | max(0, mantissa)


def unpack_gain(code: Ints) -> Ints:
    """Return the short numbers of 16-bit codes: the low 12 bits shifted left by the high 4."""
    return (code & 0xFFF) << (code >> 12)


# ---- evaluation --------------------------------------------------------------------------------------------


def points_at_once(network: Network, outputs: int) -> int:
    """Return how many points should be evaluated together, so that a layer of them stays in the cache."""
    widest = max(len(layer.biases) for layer in network.layers)
    return max(1, min(_BLOCK, _ROOM // max(widest, min(outputs, _BLOCK))))


class Evaluator:
    """A network ready for many points: matrices in float32, and memory to work in. For one thread at a time.

    Parameters
    ----------
    network : Network
        Checked.
    outputs : slice or ndarray of int, optional
        Those wanted.
    """

    def __init__(self, network: Network, outputs: slice | Ints | None = None) -> None:
        chosen = slice(None) if outputs is None else outputs
        self.network = network
        self.readout = network.readout[chosen].astype(np.float32)
        self._gains = network.gains if len(network.gains) == 1 else network.gains[chosen]
        self._offsets = network.offsets[chosen]
        self._weights = [layer.weights.astype(np.float32) for layer in network.layers]
        self._biases = [_scaled(layer.biases, network.bias_multiplier, layer.activation.dtype)[:, None]
                        for layer in network.layers]  # fmt: skip
        self._kept: dict[tuple[str, int, np.dtype[Any]], npt.NDArray[Any]] = {}
        self._points = 0

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the outputs K of section 7.3, (outputs, points).

        Parameters
        ----------
        inputs : ndarray of any integer type, shape (inputs, points)
            Within the magnitude of `Values`, or within what `Network.check_reach` has passed.
        """
        out = np.empty((len(self.readout), inputs.shape[1]), np.int64)
        step = points_at_once(self.network, len(self.readout))
        for begin in range(0, inputs.shape[1], step):
            block = slice(begin, begin + step)
            hidden = self.hidden(self._first(inputs[:, block]))
            for part in self.parts():
                out[part, block] = self.read_out(hidden, part)
        return out

    def first_sums(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return what a unit of each input adds to z of the first layer, (units, inputs), and its biases, (units,)."""
        layer = self.network.layers[0]
        return _scaled(layer.weights, layer.multiplier, layer.activation.dtype), self._biases[0][:, 0]

    def hidden(self, z: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the outputs of the last hidden layer, (units, points); the next call overwrites them.

        Parameters
        ----------
        z : ndarray of uint32 or float64, shape (units, points)
            Sums of the first layer, in the type of its activation; overwritten.
        """
        self._make_room(z.shape[1])
        self._kept["z", len(z), z.dtype] = z  # later layers write where the first one was read
        y = self._activate(0, z)
        for number in range(1, len(self.network.layers)):
            products = self._room("a", self.network.layers[number], np.float32)
            np.matmul(self._weights[number], y, out=products)
            y = self._activate(number, self._sums(number, products))
        return y

    def parts(self) -> list[slice]:
        """Return the outputs in parts that `read_out` should take at a time."""
        return [slice(first, first + _BLOCK) for first in range(0, len(self.readout), _BLOCK)]

    def read_out(self, hidden: npt.NDArray[np.float32], part: slice) -> npt.NDArray[np.int64]:
        """Return the outputs K, (outputs of the part, points), for what `hidden` gives."""
        shift = self.network.shift
        number: npt.NDArray[np.int64] = np.matmul(self.readout[part], hidden).astype(np.int64)
        number *= (self._gains if len(self._gains) == 1 else self._gains[part])[:, None]
        # offset and rounding half in one addition
        number += (self._offsets[part].astype(np.int64) << (shift - 4))[:, None] + (1 << (shift - 1))
        number >>= shift
        return number

    def _activate(self, number: int, z: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the outputs of a layer for its z, (units, points)."""
        layer = self.network.layers[number]
        y = self._room("y", layer, np.float32)
        layer.activation.apply(z, self._room("index", layer, np.intp), y)
        return y

    def _first(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return z of the first layer for inputs (inputs, points)."""
        layer = self.network.layers[0]
        if isinstance(self.network.inputs, Values):
            self._make_room(inputs.shape[1])
            return self._sums(0, self._weights[0] @ inputs.astype(np.float32))
        weights, biases = self.first_sums()
        columns = inputs.astype(np.int64).astype(layer.activation.dtype)  # modulo 2^32, or exact
        z: npt.NDArray[Any] = weights @ columns
        z += biases[:, None]
        return z

    def _sums(self, number: int, products: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return z of a layer for its product-sums, both (units, points)."""
        layer = self.network.layers[number]
        z = self._room("z", layer, layer.activation.dtype)
        if layer.activation.wraps:
            np.copyto(z.view(np.int32), products, casting="unsafe")
            np.multiply(z, np.uint32(layer.multiplier), out=z)
        else:
            np.multiply(products, np.float64(layer.multiplier), out=z)
        np.add(z, self._biases[number], out=z)
        return z

    def _make_room(self, points: int) -> None:
        """Forget the memory for another number of points."""
        if points != self._points:
            self._points = points
            self._kept.clear()

    def _room(self, name: str, layer: Layer, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return memory for a layer at the points of this call."""
        key = name, len(layer.biases), np.dtype(dtype)
        if key not in self._kept:
            self._kept[key] = np.empty((len(layer.biases), self._points), dtype)
        return self._kept[key]


def _scaled(numbers: Ints, multiplier: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return numbers times a multiplier, exactly, or modulo 2^32 (int64 wraps at a multiple of it)."""
    return (numbers.astype(np.int64) * multiplier).astype(dtype)
