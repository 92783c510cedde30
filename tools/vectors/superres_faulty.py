"""The faulty vectors of mode superres: each field out of its range, cut short, or in conflict with the box."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inrstore.chunk import modes
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.inr.network import Network, Values, pack_gain
from inrstore.chunk.superres.decode import Payload, write
from inrstore.chunk.superres.network import Dense, Operator, Refiner

from .frames import Array, Net, edit, like, patch, payload_of, repack
from .superres import Pieces, Sharp, joined, pieces_of, superres_frame

Faults = Iterator[tuple[str, bytes, str, str]]
_BAD, _LIMIT = "CorruptChunkError", "LimitExceededError"
_u2, _u4 = struct.Struct("<H").pack, struct.Struct("<I").pack
_SMALL = Sharp(seed=460, plan=Dense(1, 2, 1, 1, 2), net=Net(seed=460, layers=1, width=3))
_PLACE = Sharp(seed=461, plan=Operator(1, 1, 2, 1, 1), net=Net(seed=461, layers=1, width=3))


def faulty_superres() -> Faults:
    """Yield name, bytes, error and field."""
    whole = superres_frame(like((2, 4, 6), "<i2"), _SMALL)
    pieces = pieces_of(payload_of(whole)[1:])
    if b"\0" + joined(pieces) != payload_of(whole):
        raise SystemExit("a frame is not made of its fields")
    yield from _header(whole, pieces)
    yield from _refiner(whole, pieces)
    yield from _plans(whole, pieces)
    yield from _volumes()
    yield from _networks()


def unchecked(shape_like: Array, payload: Payload) -> bytes:
    """Return a frame whose payload no reader can decode."""
    return seal(modes.SUPERRES, shape_like, b"\0" + write(payload), shape_like)


def changed(whole: bytes, pieces: Pieces, **fields: bytes) -> bytes:
    """Return the frame with some of its fields replaced."""
    if not fields.keys() <= pieces.keys():
        raise KeyError(sorted(fields.keys() - pieces.keys()))
    return repack(whole, b"\0" + joined(pieces | fields))


def _header(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    yield "superres-of-bool", edit(whole, 6, b"\x0c"), _BAD, "mode"
    empty = encode_as(modes.RAW, like((0, 3), "<i2")) or b""
    yield "superres-without-values", edit(empty, 5, b"\x08"), _BAD, "shape"
    yield "superres-channel-axis", one(channel_axis=b"\3"), _BAD, "superres.channel_axis"
    yield "superres-exponent", one(exponent=b"\x05"), _BAD, "superres.exponent"
    yield "superres-exponent-negative", one(exponent=b"\xff"), _BAD, "superres.exponent"
    yield "superres-low-above-high", one(high=struct.pack("<i", -2001)), _BAD, "superres.low"
    yield "superres-place-2", one(place=b"\2"), _BAD, "superres.place"
    for name in ("input", "output"):
        for number in (0, 41):
            fields = {f"{name}_shift": bytes([number])}
            yield f"superres-{name}-shift-{number}", one(**fields), _LIMIT, f"superres.{name}_shift"
    far = one(units=struct.pack("<iHH", -(2**31), 0xFFFF, 1))
    yield "superres-centre-far", far, _LIMIT, "superres.units"
    far = one(units=struct.pack("<iHH", 2**31 - 1, pack_gain(2.0**21), 1))
    yield "superres-centre-far-above", far, _LIMIT, "superres.units"
    names = list(pieces)
    before = b"".join(pieces[n] for n in names[: names.index("place")])
    for size, name in ((31, "superres-digest-missing"), (32, "superres-shared-not-there")):
        yield name, repack(whole, b"\0" + before + b"\1" + bytes(size)), _BAD, "superres.digest"
    for name in (*names[: names.index("kind")], "input_shift", "output_shift", "units"):
        kept = b"".join(pieces[n] for n in names[: names.index(name) + 1])[:-1]
        yield f"superres-{name.replace('_', '-')}-missing", repack(whole, b"\0" + kept), _BAD, f"superres.{name}"
    yield "superres-byte-left-over", repack(whole, payload_of(whole) + b"\0"), _BAD, "superres.network"


def _refiner(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    yield "superres-kind-67", one(kind=b"\x43"), _BAD, "superres.kind"
    yield "superres-reach-8", one(reach=b"\x08"), _BAD, "superres.reach"
    yield "superres-scale-16", one(scales=b"\0\4\1"), _LIMIT, "superres.scales"
    last = int.from_bytes(pieces["table_0"][:4], "little")
    yield "superres-peak", one(table_0=_u4(last) + _u2(1024)), _LIMIT, "superres.peak"
    count = int.from_bytes(pieces["word_count"], "little")
    yield "superres-words-beyond", one(word_count=_u4(2**32 - 1)), _BAD, "superres.words"
    yield "superres-words-fewer", one(word_count=_u4(count - 1), words=pieces["words"][:-2]), _BAD, "rans.words"
    yield "superres-words-more", one(word_count=_u4(count + 1), words=pieces["words"] + b"\0\0"), _BAD, "rans.words"
    yield "superres-state-low", one(states=_u4(2**16 - 1)), _BAD, "rans.states"
    names = list(pieces)
    for name, field in (
        ("kind", "kind"), ("reach", "reach"), ("scales", "scales"), ("growth", "growth"), ("bottleneck", "bottleneck"),
        ("multipliers", "multipliers"), ("table_3", "peak"), ("word_count", "words"), ("words", "words"),
    ):  # fmt: skip
        kept = b"".join(pieces[n] for n in names[: names.index(name) + 1])[:-1]
        if name == "multipliers":  # so many parameters have to be earned by bytes
            kept = kept[:-1]
        yield (
            f"superres-refiner-{name.replace('_', '-')}-missing",
            repack(whole, b"\0" + kept),
            _BAD,
            f"superres.{field}",
        )


def _plans(whole: bytes, pieces: Pieces) -> Faults:
    for name in ("blocks", "layers", "growth", "first", "bottleneck"):
        yield f"superres-dense-{name}-0", changed(whole, pieces, **{name: b"\0"}), _LIMIT, f"superres.{name}"
    many = changed(whole, pieces, blocks=b"\x20", layers=b"\x40")
    yield "superres-dense-maps", many, _LIMIT, "superres.growth"
    many = changed(whole, pieces, layers=b"\x08", growth=b"\x40", bottleneck=b"\xff")
    yield "superres-dense-parameters", many, _LIMIT, "superres.bottleneck"
    place = superres_frame(like((2, 4, 6), "<i2"), _PLACE)
    own = pieces_of(payload_of(place)[1:])
    for name in ("layers", "channels", "width", "heads"):
        yield f"superres-operator-{name}-0", changed(place, own, **{name: b"\0"}), _LIMIT, f"superres.{name}"
    yield "superres-operator-heads-odd", changed(place, own, heads=b"\3"), _LIMIT, "superres.heads"
    yield "superres-operator-heads-of-17", changed(place, own, width=b"\x11"), _LIMIT, "superres.heads"
    yield "superres-operator-attentions-3", changed(place, own, attentions=b"\3"), _LIMIT, "superres.attentions"
    many = changed(place, own, channels=b"\xff", width=b"\xf0", heads=b"\x0f")
    yield "superres-operator-parameters", many, _LIMIT, "superres.attentions"
    yield "superres-value-changed", edit(place, 8 + 12, b"\1\2\3\4"), _BAD, "decoded_crc"
    yield "superres-coordinate-network", patch(place, len(payload_of(place)) - 1, b"\xff"), _BAD, "rans.states"


def _volumes() -> Faults:
    """Axes and costs that do not go together with a refiner."""
    for shape, axis in (((2, 2, 2, 2), None), ((3,), 0)):
        made = replace(_SMALL.build((2, 2, 2)), channel_axis=axis)
        yield f"superres-axes-{len(shape) - (axis is not None)}", unchecked(like(shape, "<i2"), made), _BAD, (
            "superres.channel_axis")  # fmt: skip
    made = _SMALL.build((2, 4, 6))
    yield "superres-scale-of-no-axis", unchecked(like((8,), "<i2"), made), _BAD, "superres.scales"
    wide = Sharp(seed=462, plan=Dense(1, 1, 1, 255, 1), reach=(0, 0, 0), scales=(0, 0, 0),
                 net=Net(seed=462, layers=1, width=1))  # fmt: skip
    for shape, reach in (((1, 724, 725), (0, 0, 0)), ((127, 64, 64), (1, 0, 0))):
        made = _quiet(replace(wide, reach=reach).build((1, 1, 1)))
        name = "volume" if reach[0] else "slice"
        yield f"superres-maps-of-a-{name}", unchecked(like(shape, "i1"), made), _LIMIT, "superres.scales"
    wide = replace(wide, plan=Dense(1, 1, 1, 1, 10), reach=(1, 1, 1), scales=(0, 3, 3))
    dear = _quiet(wide.build((1, 1, 1)))
    yield "superres-products", unchecked(like((1, 1, 1), "i1"), dear), _LIMIT, "superres.scales"


def _networks() -> Faults:
    """Networks of other places, and sums that leave exact numbers."""
    shape = like((2, 4, 6), "<i2")
    made = _SMALL.build((2, 4, 6))
    two = replace(made, channel_axis=0, centres=np.zeros(2), gains=np.ones(2), refinements=np.ones(2))
    yield "superres-outputs", unchecked(like((2, 2, 4, 6), "<i2"), two), _BAD, "superres.outputs"
    flat = Sharp(seed=463, plan=Dense(1, 1, 1, 1, 1), net=Net(seed=463, layers=1, width=2)).build((4, 6))
    yield "superres-inputs", unchecked(shape, flat), _BAD, "superres.inputs"
    values = Network(Values(3, 9), made.network.layers, made.network.bias_multiplier, made.network.readout,
                     made.network.gains, made.network.offsets, made.network.shift)  # fmt: skip
    yield "superres-inputs-values", unchecked(shape, replace(made, network=values)), _BAD, "superres.inputs"

    def refined(refiner: Refiner) -> bytes:
        return unchecked(shape, replace(made, refiner=refiner))

    refiner = made.refiner
    first, *others = refiner.layers
    loud = replace(first, multiplier=2**32 - 1, weights=np.full_like(first.weights, 900))
    yield "superres-multiplier", refined(replace(refiner, layers=(loud, *others))), _LIMIT, "superres.weights"
    last = others[-1]
    row = replace(last, weights=np.full_like(last.weights, 1000))
    yield "superres-row", refined(replace(refiner, layers=(first, *others[:-1], row))), _LIMIT, "superres.weights"
    row_out = replace(refiner, readout=np.full_like(refiner.readout, 1000))
    yield "superres-readout-row", refined(row_out), _LIMIT, "superres.weights"


def _quiet(payload: Payload) -> Payload:
    """Return a payload whose refiner's weights are 0: few bytes."""
    refiner = payload.refiner
    layers = tuple(replace(a, weights=a.weights * 0, biases=a.biases * 0) for a in refiner.layers)
    quiet = replace(refiner, layers=layers, readout=refiner.readout * 0)
    return replace(payload, refiner=quiet, low=-100, high=100)
