"""The faulty vectors of corrections in mode transform: each field out of its range, cut short, or of another count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from inrstore.chunk.inr.layers import BY_NAME

from .frames import like, payload_of, repack
from .inloop import ALL, Filter
from .transform import Pieces, Plan, Writer, joined, pieces_of, scan, transform_frame
from .transform_faulty import changed

Faults = Iterator[tuple[str, bytes, str, str]]
_BAD, _LIMIT = "CorruptChunkError", "LimitExceededError"
_SHAPE = (3, 5, 7)
_PLAN = Plan(seed=420, axis=0, levels=(0, 1, 1), components=2, column_shifts=[0, 1], lanes=1,
             correction=Filter(seed=420, components=1, differences=1, widths=(3,), outputs=2))  # fmt: skip


def faulty_inloop() -> Faults:
    """Yield name, bytes, error and field."""
    whole = transform_frame(like(_SHAPE, "<i2"), _PLAN)
    pieces = pieces_of(payload_of(whole)[1:], _SHAPE)
    if b"\0" + joined(pieces) != payload_of(whole) or not pieces["net_stream"]:
        raise SystemExit("a corrected frame is not made of its fields")
    yield from _missing(whole, pieces)
    yield from _fields(whole, pieces)
    yield from _networks(whole)


def _missing(whole: bytes, pieces: Pieces) -> Faults:
    names = list(pieces)
    for name in names[names.index("inloop_components") : names.index("net_stream") + 1]:
        kept = b"".join(pieces[n] for n in names[: names.index(name) + 1])[:-1]
        part, _, field = name.partition("_")
        field = {"activations": "width", "tables": "peak", "stream": "words"}.get(field, field)
        known = f"{'inloop' if part == 'inloop' else 'network'}.{field}"
        yield f"transform-corrected-{name.replace('_', '-')}-missing", repack(whole, b"\0" + kept), _BAD, known


def _fields(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    plain = transform_frame(like(_SHAPE, "<i2"), replace(_PLAN, correction=None))
    parts = pieces_of(payload_of(plain)[1:], _SHAPE)
    yield "transform-corrected-by-nothing", changed(plain, parts, flags=b"\1"), _BAD, "inloop.components"
    yield "transform-corrected-in-secret", one(flags=b"\0"), _BAD, "transform.active"
    yield "transform-corrected-flags-3", one(flags=b"\3"), _BAD, "transform.flags"
    yield "transform-corrected-components-0", one(inloop_components=b"\0"), _BAD, "inloop.components"
    yield "transform-corrected-components-3-of-2", one(inloop_components=b"\3"), _BAD, "inloop.components"
    yield "transform-corrected-differences-2-of-1", one(inloop_differences=b"\2"), _BAD, "inloop.differences"
    yield "transform-corrected-neighbours-125", one(inloop_neighbours=b"\x7d"), _LIMIT, "inloop.neighbours"
    for place in (0, 1):
        shifts = bytearray(pieces["inloop_shifts"])
        shifts[place] = 41
        yield f"transform-corrected-shift-{place}-of-41", one(inloop_shifts=bytes(shifts)), _LIMIT, "inloop.shifts"
    for place, offset in ((0, 3), (4, -3), (17, -128)):
        offsets = bytearray(pieces["inloop_offsets"])
        offsets[place] = offset & 0xFF
        forged = one(inloop_offsets=bytes(offsets))
        yield f"transform-corrected-offset-{place}-of-{offset}", forged, _LIMIT, "inloop.offsets"
    few = one(inloop_neighbours=b"\5", inloop_offsets=pieces["inloop_offsets"][:-3])
    yield "transform-corrected-inputs-too-many", few, _BAD, "inloop.inputs"
    many = one(inloop_neighbours=b"\7", inloop_offsets=pieces["inloop_offsets"] + b"\1\1\1")
    yield "transform-corrected-inputs-too-few", many, _BAD, "inloop.inputs"
    coordinates = one(net_inputs=b"\0", net_values=b"\7", net_magnitude=b"")
    yield "transform-corrected-inputs-coordinates", coordinates, _BAD, "inloop.inputs"
    yield "transform-corrected-inputs-reserved", one(net_inputs=b"\2"), _BAD, "network.inputs"
    yield "transform-corrected-magnitude-0", one(net_magnitude=b"\0\0"), _LIMIT, "network.magnitude"
    yield "transform-corrected-magnitude-32768", one(net_magnitude=b"\0\x80"), _LIMIT, "network.magnitude"
    yield "transform-corrected-values-0", one(net_values=b"\0\0"), _LIMIT, "network.values"
    yield "transform-corrected-values-4097", one(net_values=struct.pack("<H", 4097)), _LIMIT, "network.values"
    yield "transform-corrected-layers-17", one(net_layers=b"\x11"), _LIMIT, "network.layers"
    yield "transform-corrected-activation-4", one(net_activations=b"\4\2"), _BAD, "network.activation"
    yield "transform-corrected-outputs-0", one(net_outputs=bytes(4)), _LIMIT, "network.outputs"
    huge = one(net_outputs=struct.pack("<I", 2**32 - 1))
    yield "transform-corrected-outputs-beyond-the-bytes", huge, _LIMIT, "network.outputs"


def _networks(whole: bytes) -> Faults:
    def one(plan: Plan = _PLAN, changes: dict[str, Any] | None = None, **fields: Any) -> bytes:
        """Return a frame that need not be valid, with another network."""
        assert _PLAN.correction is not None
        plan = replace(plan, correction=replace(_PLAN.correction, **fields))
        header, subbands = plan.header(_SHAPE)
        assert header.correction is not None
        network = replace(header.correction.network, **(changes or {}))
        header = replace(header, correction=replace(header.correction, network=network))
        writer = Writer(plan.coefficients(header, subbands))
        scan(subbands, header.active, header.levels, header.weights, writer)
        return repack(whole, b"\0" + header.write() + writer.streams(plan.lanes))

    yield "transform-corrected-outputs-3-of-2", one(outputs=3), _BAD, "inloop.outputs"
    zeros = one(offsets=ALL, components=2, outputs=2, widths=(128,), density=0.002)  # 129 x 128
    yield "transform-corrected-16512-parameters", zeros, _LIMIT, "inloop.network"
    assert _PLAN.correction is not None
    network = _PLAN.correction.build(2).network
    layer = network.layers[0]

    def weights(*row: int, activation: str = "sine", multiplier: int = 9) -> dict[str, Any]:
        matrix = np.zeros_like(layer.weights)
        matrix[1, : len(row)] = row
        return {"layers": (replace(layer, weights=matrix, activation=BY_NAME[activation], multiplier=multiplier),)}

    row = (1023, -1023, 1023, -1023, 1023, 1023, 1023)
    wide = -(-(2**24) // sum(map(abs, row)))
    yield "transform-corrected-weights-beyond-2to24", one(changes=weights(*row), magnitude=wide), _LIMIT, \
        "network.weights"  # fmt: skip
    far = one(changes=weights(*row[:3], activation="relu", multiplier=2**32 - 1), magnitude=511)
    yield "transform-corrected-sums-beyond-2to52", far, _LIMIT, "network.weights"
    large = {"gains": np.array([4095 << 15]), "shift": 4, "readout": np.full_like(network.readout, 1023)}
    beyond = one(replace(_PLAN, gains=65535), large, amplitude=1.0)
    yield "transform-corrected-outputs-beyond-2to53", beyond, _LIMIT, "transform.outputs"
