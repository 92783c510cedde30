"""The valid vectors of mode transform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.encode import seal
from inrstore.chunk.transform import wavelet
from inrstore.chunk.transform.decode import dequantised

from .frames import Array, ball, boxed, like, with_exceptions, with_mask
from .inloop import Filter
from .transform import Plan, payload_for, shared_frame, transform_frame

Vectors = Iterator[tuple[str, bytes]]


def subset_transform() -> Vectors:
    """Yield the common ones."""
    for number, (dtype, shape, exponent) in enumerate((
        ("<i2", (150,), 0), ("u1", (13, 17), 0), ("i1", (12, 14), 0), ("<u2", (16, 15), 0), ("<i4", (5, 12, 13), 3),
        ("<u4", (12, 13), 4), ("<i8", (13, 12), 9), ("<u8", (120,), 20), ("<i2", (9, 13, 12), 0), ("<f2", (13, 14), -2),
        ("<f4", (5, 13, 12), -7), ("<f8", (14, 12), -30),
    )):  # fmt: skip
        name = f"transform-{dtype.strip('<')}-{len(shape)}d"
        yield name, transform_frame(like(shape, dtype), Plan(seed=number, exponent=exponent))
    several = Plan(seed=20, axis=0, gains=[20, 7, 30, 9, 12], offsets=[100, -900, 0, 700, 400], shift=12,
                   column_shifts=[3, 1, 0], components=3)  # fmt: skip
    yield "transform-i2-4d", transform_frame(like((5, 3, 13, 12), "<i2"), several)
    yield "transform-f4-4d", transform_frame(like((5, 3, 12, 13), "<f4"), replace(several, seed=21, exponent=-5))
    values = like((6, 14, 15), "<i2")
    yield "transform-i2-3d-box", transform_frame(values, Plan(seed=22), boxed((1, 0, 2), (5, 13, 15), _seven("<i2")))
    mask = with_mask(envelopes.whole(values.shape), ball(values.shape), np.zeros((), "<i2"))
    yield "transform-i2-3d-mask", transform_frame(values, Plan(seed=23), mask)
    yield "transform-i2-3d-trellis", transform_frame(like((9, 13, 12), "<i2"), Plan(seed=25, trellis=True))
    yield "transform-i2-4d-trellis", transform_frame(like((5, 3, 13, 12), "<i2"), replace(several, trellis=True))
    odd = with_exceptions(envelopes.whole((5, 12, 9)), "<f4", 24)
    yield "transform-f4-3d-exceptions", transform_frame(like((5, 12, 9), "<f4"), Plan(seed=24, exponent=-4), odd)


def _seven(dtype: str) -> Array:
    return np.array(-7, dtype)


def shared_transform() -> Iterator[tuple[str, bytes, list[bytes]]]:
    """Yield frames whose headers are shared parameters, and the parameters of a configuration."""
    single = Plan(seed=40, levels=(1, 1, 2))
    several = Plan(seed=41, axis=0, components=3, shift=12, gains=[20, 7, 30, 9], offsets=[100, -900, 0, 700])
    corrected = Plan(seed=42, axis=0, components=2, correction=Filter(seed=42))
    made = [shared_frame(like((5, 12, 13), "<i2"), single), shared_frame(like((4, 3, 12, 13), "<i2"), several),
            shared_frame(like((3, 5, 9, 8), "<i2"), corrected)]  # fmt: skip
    other = shared_frame(like((3, 5, 9, 8), "<i2"), replace(corrected, seed=43))[1]
    parameters = [parameter for _, parameter in made]
    yield "transform-i2-3d-shared", made[0][0], [parameters[0]]
    yield "transform-i2-4d-shared", made[1][0], parameters
    yield "transform-i2-4d-shared-corrected", made[2][0], [other, parameters[2]]
    frame, parameter = shared_frame(like((3, 5, 9, 8), "<i2"), replace(corrected, trellis=True))
    yield "transform-i2-4d-shared-corrected-trellis", frame, [parameter]
    box = boxed((0, 1, 0, 0), (4, 3, 12, 12), np.array(-7, "<i2"))
    yield "transform-i2-4d-shared-box", shared_frame(like((4, 3, 12, 13), "<i2"), several, box)[0], [parameters[1]]


def uncommon_transform() -> Vectors:
    """Yield the uncommon ones: shapes, levels, fields at their limits."""
    small = like((5, 6, 7), "<i2")

    def one(name: str, values: Array, **fields: object) -> tuple[str, bytes]:
        return f"transform-{name}", transform_frame(values, Plan(**{"seed": len(name), **fields}))  # type: ignore[arg-type]

    # shapes, axes and levels
    yield one("i2-0d", like((), "<i2"))
    yield one("i2-one-value", like((1, 1, 1), "<i2"), axis=0)
    yield one("i2-8d", like((2, 1, 3, 2, 1, 2, 3, 2), "<i2"), axis=2, levels=(2, 1, 1))
    yield one("i2-5d-channels-last", like((2, 3, 4, 5, 3), "<i2"), axis=4, levels=(1, 2, 2))
    yield one("i2-channels-in-the-middle", like((6, 4, 7), "<i2"), axis=1, levels=(0, 2, 1))
    yield one("i2-channels-alone", like((9,), "<i2"), axis=0)
    yield one("i2-one-channel", like((1, 9, 8), "<i2"), axis=0, levels=(0, 1, 1))
    yield one("i2-no-levels", small, levels=(0, 0, 0))
    yield one("i2-all-levels", small, levels=(3, 3, 3))
    yield one("i2-levels-of-2", like((2, 2, 2), "<i2"), levels=(1, 1, 1))
    yield one("i2-levels-0-1-3", small, levels=(0, 1, 3))
    yield one("i2-levels-2-0-1", small, levels=(2, 0, 1))
    yield one("i2-8-levels", like((300,), "<i2"), levels=(0, 0, 8))
    yield one("i2-odd-lengths", like((13, 11, 9), "<i2"), levels=(3, 3, 3), density=0.1)
    yield one("i2-lengths-of-3", like((3, 3, 3), "<i2"), levels=(2, 1, 2))
    # components
    yield one("i2-no-coefficients", like((4, 5, 6), "<i2"), axis=0, active=0, components=2, offsets=[900, 5, -70, 3])
    yield one("i2-one-component-of-6", like((6, 5, 6), "<i2"), axis=0, components=1, levels=(0, 1, 1))
    yield one("i2-as-many-components-as-positions", like((9, 2, 2), "<i2"), axis=0, components=4)
    yield one("i2-fewer-components-in-finer-bands", like((5, 8, 9), "<i2"), axis=0, levels=(0, 2, 2), components=4,
              active=[4, 3, 4, 0, 2, 0, 3])  # fmt: skip
    yield one("i2-components-of-fine-bands-alone", like((5, 8, 9), "<i2"), axis=0, levels=(0, 2, 2), components=3,
              active=[0, 0, 1, 0, 3, 2, 3])  # fmt: skip
    yield one("i4-column-shifts-15", like((4, 5, 6), "<i4"), axis=0, column_shifts=[15, 0, 7, 15], shift=25,
              low=-(2**31), high=2**31 - 1)  # fmt: skip
    yield one("i2-basis-of-zeros", like((4, 5, 6), "<i2"), axis=0, basis=0)
    yield one("i8-basis-of-39-bits", like((4, 5, 6), "<i8"), axis=0, basis=2**39 - 1, column_shifts=[15] * 4, active=0)
    # streams
    yield one("i2-one-lane", small, lanes=1)
    yield one("i2-signs-in-states-alone", small, lanes=9, density=0.1)
    yield one("i2-more-lanes-than-symbols", like((3, 4), "<i2"), lanes=100)
    yield one("i2-4096-lanes", like((3, 4), "<i2"), lanes=4096)
    yield one("i2-all-zero", small, density=0.0)
    yield one("i2-dense", small, density=1.0, spread=6.0)
    yield one("i2-sparse", like((12, 13, 14), "<i2"), density=0.01)
    yield one("i2-escapes", small, largest=900)
    yield one("i2-escapes-of-13-bits", small, largest=18 + 4096)
    yield one("i2-escapes-of-3-bits", small, largest=18 + 4)
    yield one("i2-low-bits", small, spread=900.0, weights=(40, 40, 20, 20, 100, 20, 20, 5, 9000))
    yield one("f8-largest-coefficients", like((5, 6, 7), "<f8"), levels=(0, 0, 0), largest=2**24, exponent=40,
              low=-(2**31), high=2**31 - 1)  # fmt: skip
    yield one("i2-counts-forgotten", like((4000,), "<i2"), levels=(0, 0, 1), density=0.9, spread=3.0,
              weights=(0,) * 8 + (5000,))  # fmt: skip
    for name, length, density in (("at-the-limit", 8168, 0.03), ("in-quarters", 32768, 0.01)):  # 2^17, above 2^18
        yield one(f"i2-counts-forgotten-{name}", like((length,), "<i2"), levels=(0, 0, 1), density=density,
                  spread=4.0, weights=(0,) * 8 + (700,))  # fmt: skip
    # two quantisers
    yield one("i2-trellis-of-nothing", small, density=0.0, trellis=True)
    yield one("i2-trellis-of-no-coefficients", small, active=0, trellis=True)
    yield one("i2-trellis-dense", small, density=1.0, spread=6.0, trellis=True)
    yield one("i2-trellis-of-ones", small, density=1.0, spread=0.0, largest=1, trellis=True)
    yield one("i2-trellis-13-lanes", small, lanes=13, trellis=True)
    yield one("i2-trellis-100-lanes", like((12, 13, 14), "<i2"), lanes=100, density=0.1, trellis=True)
    yield one("i2-trellis-low-bits", small, spread=900.0, weights=(40, 40, 20, 20, 100, 20, 20, 5, 9000), trellis=True)
    yield one("f8-trellis-largest", like((5, 6, 7), "<f8"), levels=(0, 0, 0), largest=2**24, exponent=40,
              low=-(2**31), high=2**31 - 1, trellis=True)  # fmt: skip
    yield one("i2-trellis-counts-forgotten", like((8168,), "<i2"), levels=(0, 0, 1), density=0.03, spread=4.0,
              weights=(0,) * 8 + (700,), trellis=True)  # fmt: skip
    yield one("i2-trellis-odd-lengths", like((13, 11, 9), "<i2"), levels=(3, 3, 3), density=0.1, trellis=True)
    for biases in ((127, 127), (-128, -128)):
        yield one(f"i2-trellis-biases{biases[0]:+}{biases[1]:+}", small, biases=biases, trellis=True)
    # weights
    yield one("i2-weights-0", small, weights=(0,) * 9)
    yield one("i2-weight-alone", small, weights=(0,) * 8 + (2**24 - 1,))
    rest = 2**24 - 1 - 4080 * (6 * 100 + 6 * 90 + 12 * 50 + 8 * 40 + 200 + 6 * 30 + 7 * 20 + 42 * 25)
    yield one("i2-weights-at-the-limit", small, levels=(1, 1, 1), spread=300.0,
              weights=(100, 90, 50, 40, 200, 30, 20, 25, rest))  # fmt: skip
    for i in range(8):
        rows = [0] * 8
        rows[i] = 90
        yield one(f"i2-weight-{i}", like((6, 7, 5), "<i2"), weights=(*rows, 60), levels=(2, 1, 1), spread=9.0)
    # outputs
    for biases in ((127, 127), (-128, -128), (60, -60), (0, 0)):
        yield one(f"i2-biases{biases[0]:+}{biases[1]:+}", small, biases=biases, levels=(1, 1, 1))
    yield one("i2-shift-1", small, shift=1, gains=1, offsets=-4, offset_shift=0)
    yield one("i4-shift-45", like((5, 6, 7), "<i4"), shift=45, gains=65535, offset_shift=45, offsets=1,
              low=-(2**31), high=2**31 - 1, spread=3e5)  # fmt: skip
    yield one("i4-outputs-almost-2to53", like((3, 5, 6), "<i4"), axis=0, levels=(0, 0, 1), active=0, shift=14,
              offset_shift=14, offsets=[2**39 - 1, 1 - 2**39, 9], low=-(2**31), high=2**31 - 1)  # fmt: skip
    yield one("i4-sums-of-52-bits", like((3, 5, 6), "<i4"), axis=0, levels=(0, 0, 1), shift=27, gains=65535, basis=90,
              column_shifts=[8, 7, 4], largest=3000, low=-(2**31), high=2**31 - 1)  # fmt: skip
    yield one("i2-low-is-high", small, low=12, high=12)
    yield one("i8-exponent-40", like((5, 6, 7), "<i8"), exponent=40, low=-(2**23), high=2**23 - 1)
    yield one("u8-2to63", like((5, 6, 7), "<u8"), exponent=33, low=0, high=2**31 - 1, shift=1, gains=60000)
    yield one("f4-exponent-minus-100", like((5, 6, 7), "<f4"), exponent=-100)
    yield one("f4-exponent-97", like((5, 6, 7), "<f4"), exponent=97, low=-(2**31) + 128, high=2**31 - 128, shift=1,
              gains=60000)  # fmt: skip
    yield one("f2-subnormal", like((5, 6, 7), "<f2"), exponent=-26)
    yield one("f2-rounded", like((5, 6, 7), "<f2"), exponent=-3, low=-90_000, high=90_000, gains=900)
    # layouts and envelopes
    yield one("i2-big-endian", like((5, 6, 7), ">i2"))
    yield one("f4-fortran-big-endian", like((5, 6, 7), ">f4", "F"), axis=2, exponent=-3)
    odd = with_exceptions(boxed((0, 1, 2), (5, 6, 7), np.full((), np.nan, "<f4")), "<f4", 30)
    odd = with_mask(odd, ball((1, 5, 5)), np.full((), np.nan, "<f4"))
    yield "transform-f4-box-mask-exceptions", transform_frame(like((5, 6, 7), "<f4"), Plan(seed=30, axis=0), odd)
    payload = envelopes.write(envelopes.whole((2, 2, 2)), (2, 2, 2)) + beyond(0.999)
    yield "transform-i2-values-almost-2to35", seal(modes.TRANSFORM, like((2, 2, 2), "<i2"), payload)


def beyond(factor: float) -> bytes:
    """Return a payload whose largest value between two axes is `factor` times what is allowed."""
    plan = Plan(levels=(1, 1, 1), biases=(0, 0), lanes=1)
    header, subbands = plan.header((2, 2, 2))

    def made(size: int) -> list[np.ndarray]:
        return [np.full((1, 1, 1, 1), size * (-1) ** sum(subband.key), np.int64) for subband in subbands]

    parts = {(b.level, b.key): dequantised(c, b, header) for b, c in zip(subbands, made(1 << 20), strict=True)}
    whole = wavelet.inverse(parts, (2, 2, 2), header.levels)
    assert whole is not None
    return payload_for(plan, (2, 2, 2), made(int(factor * 2**55 / float(np.abs(whole).max()))))
