"""The valid vectors of a correction inside the transform: what every reader meets, and what is seldom seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from inrstore.chunk import envelope as envelopes

from .frames import ball, boxed, like, with_exceptions, with_mask
from .inloop import ALL, BEHIND, CUBE, FACES, Filter
from .transform import Plan, transform_frame

Vectors = Iterator[tuple[str, bytes]]


def subset_inloop() -> Vectors:
    """Yield the common ones."""
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
