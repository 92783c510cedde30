"""Make corrections of mode transform from random networks.

Nothing is fitted: the integers are random, of fixed seeds. The vectors are in `inloop_valid` and `inloop_faulty`.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inr.layers import BY_NAME, Layer
from inrstore.chunk.inr.network import Network, Values, pack_gain, unpack_gain

Offset = tuple[int, int, int]
CUBE: tuple[Offset, ...] = tuple(o for o in itertools.product((-1, 0, 1), repeat=3) if any(o))
FACES: tuple[Offset, ...] = tuple(o for o in CUBE if sum(map(abs, o)) == 1)
BEHIND: tuple[Offset, ...] = tuple((2 * z, 2 * y, 2 * x) for z, y, x in FACES)
ALL: tuple[Offset, ...] = tuple(o for o in itertools.product(range(-2, 3), repeat=3) if any(o))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A correction to order; None leaves a field to the maker. The names are those of section 16.

    Parameters
    ----------
    seed : int
    components, differences : int, optional
        At most 4 and at most 2 by default.
    offsets : sequence of offsets
    shifts, difference_shifts : int or sequence of int
        Repeated as often as there are components.
    outputs : int, optional
        As many as components are read.
    widths : tuple of int
    activations : str
        Names, repeated as often as there are layers.
    magnitude : int
    amplitude : float
        About how large outputs are, in units of components.
    each : bool
        Every output has a gain of its own.
    offset : int
        Largest magnitude of the offsets of outputs.
    spread : int
        Of weights.
    density : float
        How many weights are not 0.
    frequency : float
        Turns of a unit for inputs at half their magnitude.
    """

    seed: int = 0
    components: int | None = None
    differences: int | None = None
    offsets: Sequence[Offset] = FACES
    shifts: int | Sequence[int] = 3
    difference_shifts: int | Sequence[int] = 2
    outputs: int | None = None
    widths: tuple[int, ...] = (6,)
    activations: str = "sine"
    magnitude: int = 511
    amplitude: float = 1500.0
    each: bool = True
    offset: int = 4000
    spread: int = 9
    density: float = 1.0
    frequency: float = 0.2

    def build(self, components: int) -> Correction:
        """Return the correction for a chunk with so many components."""
        rng = np.random.default_rng(self.seed)
        count = min(components, 4) if self.components is None else self.components
        near = min(count, 2) if self.differences is None else self.differences
        outputs = count if self.outputs is None else self.outputs
        inputs = count + near * len(self.offsets)
        layers, before, reach = [], inputs, self.magnitude / 2
        for width, name in zip(self.widths, itertools.cycle(self.activations.split()), strict=False):
            matrix = self._weights(rng, width, before, self.magnitude if not layers else 1023)
            typical = reach * self.spread * max(1.0, before * self.density) ** 0.5 * 0.7
            turn = self.frequency if name == "sine" else 2.5  # of 2^32, or outputs up to some hundreds
            multiplier = max(1, round(turn * 2.0**32 / typical))
            layers.append(Layer(BY_NAME[name], matrix, rng.integers(-20, 21, width), min(multiplier, 2**32 - 1)))
            before, reach = width, 600.0
        gain = self.amplitude / (600 * self.spread * before**0.5)
        gain = gain * (rng.uniform(0.3, 1.5, outputs) if self.each and outputs > 1 else np.ones(1))
        shift = min(24, max(4, math.floor(26.9 - math.log2(gain.max()))))
        gains = unpack_gain(np.array([pack_gain(min(float(g) * 2.0**shift, 2.0**27 - 2**16)) for g in gain]))
        network = Network(
            Values(inputs, self.magnitude), tuple(layers), 2**32 // 64 + 1, self._weights(rng, outputs, before, 1023),
            gains, rng.integers(-self.offset, self.offset + 1, outputs), shift,
        )  # fmt: skip
        return Correction(
            tuple(np.resize(self.shifts, count).tolist()), tuple(np.resize(self.difference_shifts, near).tolist()),
            np.array(self.offsets, np.int64).reshape(-1, 3), network,
        )  # fmt: skip

    def _weights(self, rng: np.random.Generator, rows: int, columns: int, most: int) -> npt.NDArray[np.int64]:
        bell = np.rint(rng.laplace(0, self.spread / 2, (rows, columns))).astype(np.int64)
        kept = np.clip(bell, -1023, 1023) * (rng.random((rows, columns)) < self.density)
        over = np.ceil(np.abs(kept).sum(1) * most / (2**24 - 1)).astype(np.int64)
        return np.asarray(np.sign(kept) * (np.abs(kept) // np.maximum(1, over)[:, None]))


def take_apart(take: Callable[[str, int], bytes]) -> None:
    """Take the bytes of a correction by field; those of the network have names that begin with `net`."""
    count, near, neighbours = (take(f"inloop_{name}", 1)[0] for name in ("components", "differences", "neighbours"))
    take("inloop_shifts", count + near)
    take("inloop_offsets", 3 * neighbours)
    take("net_inputs", 1)
    inputs = struct.unpack("<H", take("net_values", 2))[0]
    take("net_magnitude", 2)
    layers = take("net_layers", 1)[0]
    widths = [before + 1 for before in take("net_activations", 2 * layers)[1::2]]
    outputs = struct.unpack("<I", take("net_outputs", 4))[0]
    take("net_multipliers", 4 * (layers + 1))
    take("net_tables", 6 * (layers + 2))
    take("net_shift", 1)
    take("net_gains", 2 * (outputs if take("net_gain_kind", 1)[0] else 1))
    take("net_offsets", take("net_offset_bytes", 1)[0] * outputs)
    parameters = sum(b * (a + 1) for a, b in itertools.pairwise([inputs, *widths])) + outputs * widths[-1]
    words = struct.unpack("<I", take("net_words", 4))[0]
    take("net_stream", 4 * max(1, -(-parameters // 1024)) + 2 * words)


def any_filter(rng: np.random.Generator, components: int) -> Filter:
    """Return a valid one of random fields."""

    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    count = number(1, min(components, 6))
    near = number(0, min(count, 3))
    most = int(rng.choice([0, 1, 7, 20]))
    offsets: Any = rng.integers(-2, 3, (number(0, most), 3)).tolist()
    return Filter(
        seed=number(0, 2**32), components=count, differences=near, offsets=offsets,
        shifts=rng.integers(0, number(1, 41), count).tolist(), difference_shifts=[number(0, 12)],
        outputs=number(1, min(components, 6)), widths=tuple(number(1, 9) for _ in range(number(1, 3))),
        activations=" ".join(rng.choice(["sine", "relu", "linear"], 3, p=[0.6, 0.2, 0.2])),
        magnitude=int(rng.choice([1, 5, 511, 2000])), amplitude=float(rng.choice([50, 1500, 90_000])),
        each=bool(rng.random() < 0.5), offset=int(rng.choice([0, 90, 60_000])), density=float(rng.choice([0.3, 1])),
    )  # fmt: skip
