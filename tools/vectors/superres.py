"""Make frames in mode superres from random networks of fixed seeds, and list the valid vectors of the mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from inrstore.chunk import decode as chunks
from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.encode import seal
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr.layers import Layer
from inrstore.chunk.inr.network import pack_gain, unpack_gain
from inrstore.chunk.shared import of
from inrstore.chunk.superres.decode import Payload, coarse_lengths, write
from inrstore.chunk.superres.network import Dense, Operator, Plan, Refiner, read, taps

from .frames import Array, Net, ball, boxed, like, with_exceptions, with_mask

DENSE = Dense(blocks=2, layers=2, growth=3, first=4, bottleneck=5)
OPERATOR = Operator(layers=2, channels=3, width=6, heads=2, attentions=1)


@dataclass(frozen=True, kw_only=True)
class Sharp:
    """A random pair of networks to order; the fields are those of the specification, section 17.

    Parameters
    ----------
    net : Net
        The network of the place; its `axis`, `exponent`, `low` and `high` are those of the payload.
    """

    seed: int = 0
    plan: Plan = DENSE
    reach: tuple[int, int, int] = (0, 1, 1)
    scales: tuple[int, int, int] = (0, 1, 1)
    spread: int = 12
    net: Net = Net(seed=400, layers=2, width=8)  # noqa: RUF009
    refinement: float = 200.0
    """What a refiner adds, about."""
    input_shift: int = 12
    each: bool = False

    def refiner(self) -> Refiner:
        """Return the refining network."""
        rng = np.random.default_rng(self.seed)
        layers: list[Layer] = []
        convolutions = list(self.plan.convolutions(max(self.scales)))
        for one in convolutions:
            columns = one.inputs * taps(one, self.reach)
            weights = np.rint(rng.laplace(0, self.spread / 2, (one.outputs, columns)))
            weights = np.clip(weights, -1023, 1023).astype(np.int64)
            over = -(-np.abs(weights).sum(1) * 1023 // (2**24 - 1))
            weights //= np.maximum(1, over)[:, None]
            if one.activation is None:
                break
            biases = np.rint(rng.laplace(0, 8, one.outputs)).astype(np.int64)
            each = round(2**24 / (self.spread * 0.7 * columns**0.5))
            layers.append(Layer(one.activation, weights, biases, each))
        return Refiner(self.plan, self.reach, self.scales, tuple(layers), 2**24 - 5, weights)

    def build(self, box: tuple[int, ...], shared: bool = False) -> Payload:
        """Return the networks for a box of this shape."""
        refiner, net = self.refiner(), self.net
        lengths = [n for a, n in enumerate(box) if a != net.axis]
        coarse = coarse_lengths(refiner, lengths)
        if net.axis is not None:
            coarse.insert(net.axis, box[net.axis])
        made = net.build(tuple(coarse))
        channels = made.network.outputs
        rng = np.random.default_rng(self.seed + 1)
        span = rng.uniform(0.5, 1.5, channels) if self.each else np.ones(channels)
        inputs = span * 300 / max(1.0, net.amplitude) * 2.0**self.input_shift
        typical = 300 * self.spread * refiner.readout.shape[1] ** 0.5
        shift = min(40, int(26 - np.log2(self.refinement / typical)))
        gains, refinements = (
            unpack_gain(np.array([pack_gain(float(g)) for g in of_each]))
            for of_each in (inputs, span * self.refinement / typical * 2.0**shift)
        )
        centres = np.rint(np.full(channels, net.centre)).astype(np.int64)
        return Payload(net.axis, net.exponent, net.low, net.high, refiner, shared, self.input_shift, shift, centres,
                       gains, refinements, made.network)  # fmt: skip


def superres_frame(shape_like: Array, sharp: Sharp | Payload, envelope: Envelope | None = None) -> bytes:
    """Return a frame; the array gives shape, dtype and layout."""
    envelope = envelope or envelopes.whole(shape_like.shape)
    made = sharp.build(envelope.box_shape) if isinstance(sharp, Sharp) else sharp
    payload = envelopes.write(envelope, shape_like.shape) + write(made)
    if not made.shared:
        return seal(modes.SUPERRES, shape_like, payload)
    # The checksum of what it decodes to is that of the frame that brings its network.
    whole = superres_frame(shape_like, replace(made, shared=False), envelope)
    return seal(modes.SUPERRES, shape_like, payload, chunks.decode_chunk(whole))


def subset_superres() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of both kinds of refiner on common images."""
    yield "superres-dense-i2-3d", superres_frame(like((3, 12, 14), "<i2"), Sharp(seed=400))
    quarter = Sharp(seed=401, scales=(0, 2, 2), net=Net(seed=401, layers=3, width=6))
    yield "superres-dense-i2-quarter", superres_frame(like((2, 16, 12), "<i2"), quarter)
    three = Sharp(seed=402, plan=OPERATOR, reach=(1, 1, 1), scales=(1, 1, 1))
    yield "superres-operator-i2-3d", superres_frame(like((6, 8, 10), "<i2"), three)
    channels = Sharp(seed=403, plan=OPERATOR, reach=(1, 1, 1), scales=(1, 2, 2), each=True,
                     net=Net(seed=403, layers=2, width=8, axis=0, each=True))  # fmt: skip
    yield "superres-operator-i2-4d", superres_frame(like((3, 4, 8, 8), "<i2"), channels)
    channels = replace(channels, seed=404, plan=DENSE, reach=(0, 1, 1), scales=(0, 1, 1))
    yield "superres-dense-u2-4d", superres_frame(like((2, 3, 9, 7), "<u2"), _positive(channels))


def uncommon_superres() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of rare types, axes, plans and sums at their limits."""
    fine = Net(seed=410, layers=2, width=6, exponent=-3, low=-(2**30), high=2**30, amplitude=90000.0)
    yield "superres-f4-exponent", superres_frame(like((5, 6, 7), "<f4"), Sharp(seed=410, net=fine, refinement=3e4))
    whole = Sharp(seed=411, net=Net(seed=411, layers=1, width=6, exponent=12, low=-(2**19) + 1, high=2**19 - 1))
    yield "superres-i4-exponent", superres_frame(like((3, 8, 8), "<i4"), whole)
    yield (
        "superres-u1-2d",
        superres_frame(
            like((9, 11), "u1"), _positive(Sharp(seed=412, net=Net(seed=412, layers=1, width=5, amplitude=40.0)), 255)
        ),
    )
    line = Sharp(seed=413, reach=(0, 0, 1), scales=(0, 0, 3), plan=replace(OPERATOR, attentions=2))
    yield "superres-1d-eighth-two-attentions", superres_frame(like((83,), "<i2"), line)
    line = Sharp(seed=414, reach=(0, 0, 1), scales=(0, 0, 3), plan=DENSE)
    yield "superres-1d-dense-eighth", superres_frame(like((41,), "<i2"), line)
    last = Sharp(seed=415, net=Net(seed=415, layers=1, width=6, axis=2), plan=replace(OPERATOR, attentions=0))
    yield "superres-channels-last", superres_frame(like((7, 9, 2), "<i2"), last)
    apart = Sharp(seed=416, reach=(1, 0, 1), scales=(2, 0, 1), plan=DENSE)
    yield "superres-dense-scales-apart", superres_frame(like((5, 3, 6), "<i2"), apart)
    odd = Sharp(seed=417, reach=(1, 1, 0), scales=(0, 3, 1), plan=OPERATOR)
    yield "superres-operator-scales-apart", superres_frame(like((3, 9, 5), "<i2"), odd)
    blind = Sharp(seed=418, reach=(0, 0, 0), scales=(0, 1, 0), plan=DENSE)
    yield "superres-dense-no-reach", superres_frame(like((3, 5, 4), "<i2"), blind)
    plain = Sharp(seed=419, reach=(1, 1, 1), scales=(0, 0, 0), plan=OPERATOR)
    yield "superres-operator-no-scale", superres_frame(like((3, 4, 5), "<i2"), plain)
    one = Sharp(seed=420, plan=Dense(1, 1, 1, 1, 1))
    yield "superres-dense-smallest", superres_frame(like((1, 1, 1), "<i2"), one)
    one = Sharp(seed=421, plan=Operator(1, 1, 1, 1, 1), reach=(1, 1, 1))
    yield "superres-operator-smallest", superres_frame(like((1, 1, 1), "<i2"), one)
    head = Sharp(seed=422, plan=Operator(1, 2, 16, 1, 1), reach=(0, 1, 1))
    yield "superres-operator-heads-of-16", superres_frame(like((2, 5, 6), "<i2"), _loud(head))
    heavy = Sharp(seed=423, plan=Dense(1, 1, 4, 6, 6), spread=900)
    yield "superres-dense-peaks-1023", superres_frame(like((1, 6, 6), "<i2"), heavy)
    lanes = Sharp(seed=424, plan=Dense(1, 1, 3, 8, 3), reach=(1, 1, 1), scales=(1, 1, 1))
    yield "superres-dense-lanes", superres_frame(like((3, 4, 4), "<i2"), lanes)
    edge = Sharp(seed=425, net=Net(seed=425, layers=1, width=4, amplitude=2e9, low=-(2**31), high=2**31 - 1),
                 input_shift=3, refinement=1e9)  # fmt: skip
    yield "superres-i8-far", superres_frame(like((2, 6, 6), "<i8"), edge)
    values = like((6, 8, 8), "<f4")
    around = with_exceptions(boxed((1, 0, 2), (5, 8, 7), np.array(np.nan, "<f4")), "<f4", 426)
    yield "superres-f4-box-exceptions", superres_frame(values, Sharp(seed=426, net=fine, refinement=3e4), around)
    values = like((6, 8, 8), "<i2", "F").astype(">i2", order="F")
    mask = with_mask(envelopes.whole((6, 8, 8)), ball((6, 8, 8)), np.array(-3, "<i2"))
    yield "superres-big-endian-fortran-mask", superres_frame(values, Sharp(seed=427), mask)
    yield "superres-f2", superres_frame(like((3, 6, 6), "<f2"), Sharp(seed=428))
    yield "superres-f8", superres_frame(like((2, 5, 6), "<f8"), Sharp(seed=429, plan=OPERATOR, net=fine))


def shared_superres() -> Iterator[tuple[str, bytes, list[bytes]]]:
    """Yield name, frame and shared parameters of chunks that name their refiner."""
    for name, sharp in (("dense", Sharp(seed=440)), ("operator", Sharp(seed=441, plan=OPERATOR, reach=(1, 1, 1)))):
        made = sharp.build((3, 8, 9), shared=True)
        data = superres_frame(like((3, 8, 9), "<i2"), made)
        if chunks.decode_chunk(data, shared=of(made.refiner.data)).shape != (3, 8, 9):
            raise SystemExit(f"{name}: not decoded")
        yield f"superres-shared-{name}", data, [made.refiner.data]


Pieces = dict[str, bytes]


def pieces_of(payload: bytes) -> Pieces:
    """Take a payload with its refiner, behind the envelope, apart by field."""
    out: Pieces = {}
    at = 0

    def take(name: str, size: int) -> bytes:
        nonlocal at
        out[name] = payload[at : at + size]
        at += size
        return out[name]

    for name, size in (("channel_axis", 1), ("exponent", 1), ("low", 4), ("high", 4), ("place", 1)):
        take(name, size)
    refiner = read(Reader(memoryview(payload)[at:]))
    for name in ("kind", "reach"):
        take(name, 1)
    take("scales", 3)
    for field in fields(refiner.plan):
        take(field.name, 1)
    layers = len(refiner.layers)
    take("multipliers", 4 * layers + 4)
    for name in (f"table_{i}" for i in range(layers + 2)):
        take(name, 6)
    words = int.from_bytes(take("word_count", 4), "little")
    take("states", 4 * max(1, -(-refiner.parameters // 1024)))
    take("words", 2 * words)
    take("input_shift", 1)
    take("output_shift", 1)
    take("units", 8)
    take("network", len(payload) - at)
    return out


def joined(pieces: Pieces) -> bytes:
    """Return the payload made of these fields."""
    return b"".join(pieces.values())


def _positive(sharp: Sharp, high: int = 2000) -> Sharp:
    """Return an order for unsigned values."""
    return replace(sharp, net=replace(sharp.net, low=0, high=high, centre=high / 2))


def _loud(sharp: Sharp) -> Any:
    """Return networks whose units mostly lie at their bounds."""
    made = sharp.build((2, 5, 6))
    layers = tuple(replace(a, multiplier=a.multiplier * 40) for a in made.refiner.layers)
    return replace(made, refiner=replace(made.refiner, layers=layers))
