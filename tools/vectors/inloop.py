"""Make corrections of mode transform from random networks, and list the valid vectors that have one.

Nothing is fitted: the integers are random, of fixed seeds. The faulty vectors are in `inloop_faulty`.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import envelope as envelopes
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inr.layers import BY_NAME, Layer
from inrstore.chunk.inr.network import Network, Values, pack_gain, unpack_gain

Offset = tuple[int, int, int]
Vectors = Iterator[tuple[str, bytes]]
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


# ---- vectors -----------------------------------------------------------------------------------------------


def subset_inloop() -> Vectors:
    """Yield the common ones."""
    from .frames import ball, like, with_mask
    from .transform import Plan, transform_frame

    several = {"axis": 0, "components": 4, "gains": [20, 7, 30, 9, 12], "offsets": [100, -900, 0, 700, 400],
               "shift": 12, "levels": (0, 1, 1)}  # fmt: skip
    first = Plan(seed=400, correction=Filter(seed=400), **several)
    yield "transform-i2-4d-corrected", transform_frame(like((5, 3, 12, 11), "<i2"), first)
    wide = Filter(seed=401, offsets=CUBE + BEHIND, widths=(8,))
    yield "transform-i2-3d-corrected", transform_frame(like((5, 12, 13), "<i2"), Plan(seed=401, correction=wide))
    sixteen = Filter(seed=402, components=3, differences=1, widths=(16,))
    plan = Plan(seed=402, correction=sixteen, exponent=-5, **several)
    yield "transform-f4-4d-corrected", transform_frame(like((5, 3, 9, 10), "<f4"), plan)
    values = like((4, 4, 12, 11), "<i2")
    mask = with_mask(envelopes.whole(values.shape), ball((1, 4, 12, 11)), np.zeros((), "<i2"))
    plan = Plan(seed=403, axis=0, levels=(0, 1, 1), correction=Filter(seed=403))
    yield "transform-i2-4d-corrected-mask", transform_frame(values, plan, mask)


def uncommon_inloop() -> Vectors:
    """Yield the uncommon ones: every field at its limits, networks of other layers, shapes that hide neighbours."""
    from .frames import ball, boxed, like, with_exceptions, with_mask
    from .transform import Plan, transform_frame

    several, single = like((4, 3, 7, 6), "<i2"), like((4, 7, 6), "<i2")

    def one(name: str, values: Any, plan: dict[str, Any] | None = None, **fields: Any) -> tuple[str, bytes]:
        known = {"seed": len(name), "axis": 0 if values.ndim == 4 else None, "levels": (0, 1, 1), **(plan or {})}
        return f"transform-corrected-{name}", transform_frame(
            values, Plan(correction=Filter(**{"seed": len(name), **fields}), **known)
        )

    # what is read
    yield one("no-differences", several, differences=0)
    yield one("no-differences-no-neighbours", several, differences=0, offsets=())
    yield one("no-neighbours", several, offsets=())
    yield one("one-neighbour", single, offsets=((0, 0, 1),))
    yield one("neighbour-of-no-offset", single, offsets=((0, 0, 0), (1, -1, 2), (1, -1, 2)))
    yield one("124-neighbours", single, offsets=ALL, widths=(2,))
    yield one("offsets-of-2", single, offsets=BEHIND + ((2, 2, 2), (-2, -2, -2), (2, -2, 0), (-2, 1, 2)))
    yield one("all-differences", several, components=4, differences=4)
    yield one("one-component-of-4", several, components=1, differences=1)
    yield one("shifts-0", several, shifts=0, difference_shifts=0)
    yield one("shifts-40", several, shifts=40, difference_shifts=40)
    yield one("shifts-that-differ", several, shifts=[0, 40, 1, 10], difference_shifts=[11, 0])
    yield one("magnitude-1", several, magnitude=1)
    yield one("magnitude-32767", several, magnitude=32767, shifts=0, difference_shifts=0, spread=4)
    yield one("inputs-that-clamp", several, magnitude=20, shifts=0, difference_shifts=1)
    far = {"spread": 2e6, "exponent": 10, "shift": 28, "levels": (0, 0, 1), "low": -(2**20), "high": 2**20}
    yield one("inputs-beyond-2to24", like((4, 7, 6), "<i4"), far, shifts=0, difference_shifts=0, amplitude=1e9)
    # shapes
    yield one("one-value", like((), "<i2"), {"levels": (0, 0, 0)}, offsets=ALL[:30])
    yield one("line", like((150,), "<i2"), {"levels": (0, 0, 3)}, offsets=CUBE + BEHIND)
    yield one(
        "two-voxels",
        like((1, 2, 1), "<i2"),
        {"levels": (0, 0, 0), "density": 1.0, "spread": 50.0},
        offsets=CUBE + BEHIND,
    )
    yield one("rows-of-1", like((30, 4, 1), "<i2"), {"levels": (1, 0, 0)}, offsets=CUBE + BEHIND)
    yield one("slices-of-1", like((40, 1, 1), "<i2"), {"levels": (2, 0, 0)}, offsets=BEHIND)
    yield one("channels-last", like((3, 5, 6, 4), "<i2"), {"axis": 3})
    yield one("channels-alone", like((9,), "<i2"), {"axis": 0, "levels": (0, 0, 0)}, offsets=FACES)
    yield one("one-channel", like((1, 9, 8), "<i2"), {"axis": 0}, offsets=CUBE)
    yield one("6d", like((2, 3, 2, 2, 5, 4), "<i2"), {"axis": 1})
    # networks
    yield one("two-layers", several, widths=(7, 5))
    yield one("relu", several, activations="relu", widths=(9,))
    yield one("linear", several, activations="linear", widths=(5,))
    yield one("relu-sine-linear", several, activations="relu sine linear", widths=(6, 1, 4))
    yield one("16-layers", single, widths=(3,) * 16)
    yield one("width-256", single, widths=(256,), density=0.05, offsets=FACES[:2])
    limit = Filter(seed=410, components=2, differences=1, offsets=ALL, outputs=1, widths=(128,), density=0.002)
    assert limit.build(4).network.parameters == 2**14
    plan = Plan(seed=410, axis=0, levels=(0, 1, 1), correction=limit)
    yield "transform-corrected-16384-parameters", transform_frame(several, plan)
    yield one("gain-kind-0", several, each=False)
    yield one("gain-kind-1", several, each=True)
    yield one("offsets-0", several, offset=0)
    yield one("offsets-of-4-bytes", several, offset=2**30)
    yield one("weights-0", several, density=0.0)
    # outputs
    yield one("fewer-outputs-than-inputs", several, components=4, outputs=1)
    yield one("more-outputs-than-components-read", several, components=1, differences=1, outputs=4)
    yield one("as-many-outputs-as-components", several, components=4, outputs=4)
    yield one("outputs-of-no-coefficients", several, {"active": 0, "components": 3}, outputs=3)
    yield one("outputs-beyond-the-range", several, amplitude=4e6)
    yield one("outputs-beyond-2to35", like((4, 7, 6), "<i4"), {"shift": 20, "low": -(2**31), "high": 2**31 - 1},
              amplitude=1e12)  # fmt: skip
    yield one("no-levels", single, {"levels": (0, 0, 0)})
    # layouts and envelopes
    yield one("big-endian-fortran", like((4, 3, 7, 6), ">f4", "F"), {"axis": 2, "exponent": -3})
    odd = with_exceptions(boxed((0, 1, 2), (5, 6, 7), np.full((), np.nan, "<f4")), "<f4", 30)
    odd = with_mask(odd, ball((1, 5, 5)), np.full((), np.nan, "<f4"))
    plan = Plan(seed=30, axis=0, correction=Filter(seed=30))
    yield "transform-corrected-box-mask-exceptions", transform_frame(like((5, 6, 7), "<f4"), plan, odd)
