"""The faulty vectors of mode neural: each field out of its range, cut short, or in conflict with the streams."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from inrstore.chunk import modes
from inrstore.chunk.encode import encode_as
from inrstore.chunk.entropy.student import StudentTable
from inrstore.chunk.neural.neighbourhood import cube

from .frames import edit, payload_of, repack, smooth
from .neural import Net, Pieces, digest_of, joined, matrix, neural_frame, pieces_of

Faults = Iterator[tuple[str, bytes, str, str]]
_BAD, _LIMIT = "CorruptChunkError", "LimitExceededError"
_u2, _u4 = struct.Struct("<H").pack, struct.Struct("<I").pack


def faulty_neural() -> Faults:
    """Yield name, bytes, error and field."""
    values = smooth((2, 2, 4, 6), "<i2", 260)
    whole = neural_frame(values, Net(seed=260, widths=(4, 3)), table=StudentTable(3, False, 700, 20, 400))
    pieces = pieces_of(payload_of(whole)[1:])
    if b"\0" + joined(pieces) != payload_of(whole):
        raise SystemExit("a frame is not made of its fields")
    yield from _header(whole, pieces)
    yield from _network(whole, pieces)
    yield from _streams(whole, pieces)


def changed(whole: bytes, pieces: Pieces, **fields: bytes) -> bytes:
    """Return the frame with some of its fields replaced."""
    if not fields.keys() <= pieces.keys():
        raise KeyError(sorted(fields.keys() - pieces.keys()))
    return repack(whole, b"\0" + joined(pieces | fields))


def until(whole: bytes, pieces: Pieces, last: str) -> bytes:
    """Return the frame without the last byte of a field, and all that follows."""
    names = list(pieces)
    kept = b"".join(pieces[name] for name in names[: names.index(last) + 1])
    return repack(whole, b"\0" + kept[:-1])


def _header(whole: bytes, pieces: Pieces) -> Faults:
    for code, name in ((4, "i8"), (8, "u8"), (11, "f8"), (12, "bool")):
        yield f"neural-of-{name}", edit(whole, 6, bytes([code])), _BAD, "neural.dtype"
    raw = encode_as(modes.RAW, np.empty((0, 3), "<i2"))
    yield "neural-without-values", edit(raw, 5, b"\6"), _BAD, "shape"
    for name in ("base", "step", "high", "gain", "place", "offset"):
        yield f"neural-{name}-missing", until(whole, pieces, name), _BAD, f"neural.{name}"
    yield "neural-network-length-missing", until(whole, pieces, "network_length"), _BAD, "neural.network"
    yield "neural-step-0", changed(whole, pieces, step=bytes(4)), _BAD, "neural.step"
    yield "neural-high-beyond-the-type", changed(whole, pieces, base=_u4(65535)), _BAD, "neural.high"
    yield "neural-step-beyond-the-type", changed(whole, pieces, step=_u4(2**32 - 1)), _BAD, "neural.high"
    yield "neural-offset-local", changed(whole, pieces, offset=_u2(1)), _BAD, "neural.offset"
    fixed = changed(whole, pieces, inputs=b"\0", high=_u2(99), offset=_u2(100))
    yield "neural-offset-above-high", fixed, _BAD, "neural.offset"
    yield "neural-gain-0", changed(whole, pieces, gain=bytes(2)), _BAD, "neural.gain"
    yield "neural-place-2", changed(whole, pieces, place=b"\2"), _BAD, "neural.place"
    names = list(pieces)
    inside = dict.fromkeys(["network_length", *names[names.index("slices") : names.index("offset")]], b"")
    shared = b"".join((pieces | inside | {"place": b"\1", "network_length": digest_of(pieces)}).values())
    yield "neural-shared-network-not-there", repack(whole, b"\0" + shared), _BAD, "neural.digest"
    before = b"".join(pieces[name] for name in names[: names.index("place")])
    yield "neural-digest-missing", repack(whole, b"\0" + before + b"\1" + bytes(31)), _BAD, "neural.digest"
    long = b"".join((pieces | {"network_length": _u4(2**32 - 1)}).values())
    yield "neural-network-length-long", repack(whole, b"\0" + long), _BAD, "neural.network"
    for shape, name, error, field in (
        ((2, 1, 1, 20000), "steps", _LIMIT, "neural.steps"), ((4097, 1, 1, 16384), "room", _LIMIT, "neural.radii"),
    ):  # fmt: skip
        yield f"neural-{name}", edit(whole, 8, struct.pack("<4I", *shape)), error, field


def _network(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    yield "neural-slices-0", one(slices=b"\0", radii=b""), _LIMIT, "neural.slices"
    yield "neural-slices-7", one(slices=b"\7", radii=b"\1" * 7), _LIMIT, "neural.slices"
    yield "neural-radius-7", one(radii=b"\1\7"), _LIMIT, "neural.radii"
    yield "neural-radius-0-first", one(radii=b"\0\1"), _LIMIT, "neural.radii"
    yield "neural-inputs-2", one(inputs=b"\2"), _BAD, "neural.inputs"
    yield "neural-leak-16", one(leak=b"\x10"), _LIMIT, "neural.leak"
    for clip in (0, 16384):
        yield f"neural-clip-{clip}", one(clip=_u2(clip)), _LIMIT, "neural.clip"
    yield "neural-layers-9", one(layers=b"\x09"), _LIMIT, "neural.layers"
    for width in (0, 1025):
        yield f"neural-width-{width}", one(widths=_u2(4) + _u2(width)), _LIMIT, "neural.widths"
    yield "neural-weights-too-many-for-the-bytes", one(widths=_u2(1024) + _u2(1024)), _LIMIT, "neural.widths"
    yield "neural-shift-25", one(shifts=b"\x19\2\2"), _LIMIT, "neural.shifts"
    tables = pieces["tables"]
    yield "neural-peak-1024", one(tables=tables[:8] + _u2(1024) + tables[10:]), _LIMIT, "neural.tables"
    wide = one(biases=struct.pack("<i", 2**24 - 1) + pieces["biases"][4:])
    yield "neural-bias-limit", wide, _LIMIT, "neural.weights"
    least = one(biases=struct.pack("<i", -(2**31)) + pieces["biases"][4:])
    yield "neural-bias-least", least, _LIMIT, "neural.weights"
    wild = Net(seed=261, neighbourhood=cube(1), widths=(3,), spread=600, clip=1, shift=9)
    other = neural_frame(smooth((3, 5, 6), "<i2", 261), wild)
    spoilt = pieces_of(payload_of(other)[1:])
    yield "neural-weights-limit", changed(other, spoilt, clip=_u2(9000)), _LIMIT, "neural.weights"
    yield "neural-weights-states-missing", one(states=b"", words=b"\0"), _BAD, "rans.states"
    yield "neural-weights-state-low", one(states=_u4(2**16 - 1)), _BAD, "rans.states"
    yield "neural-weights-odd-byte", one(words=pieces["words"] + b"\0"), _BAD, "rans.words"
    yield "neural-weights-word-missing", one(words=pieces["words"][:-2]), _BAD, "rans.words"
    yield "neural-weights-word-too-many", one(words=pieces["words"] + b"\0\0"), _BAD, "rans.words"
    names = list(pieces)
    for name in names[names.index("slices") : names.index("words")]:
        inside = b"".join(pieces[n] for n in names[names.index("slices") : names.index(name) + 1])[:-1]
        head = b"".join(pieces[n] for n in names[: names.index("network_length")])
        field = "rans.states" if name == "states" else f"neural.{name}"
        yield f"neural-{name}-missing", repack(whole, b"\0" + head + _u4(len(inside)) + inside), _BAD, field


def _streams(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    for name, columns in (("near_weights", 14), ("error_weights", 19)):
        row, field, short = np.zeros(columns, np.int64), f"neural.{name}", name.split("_")[0]
        row[1] = -1
        yield f"neural-{short}-weight-negative", one(**{name: matrix(row)}), _BAD, field
        row[1] = 2**24 // 4095 + 1
        yield f"neural-{short}-weights-limit", one(**{name: matrix(row)}), _LIMIT, "neural.error_weights"
        row[1] = 2**38
        yield f"neural-{short}-weights-far-beyond", one(**{name: matrix(row)}), _LIMIT, "neural.error_weights"
        yield f"neural-{short}-weights-width-41", one(**{name: b"\x29" + bytes(columns + 5)}), _LIMIT, field
        yield f"neural-{short}-weights-missing", until(whole, pieces, name), _BAD, field
    contexts = pieces["contexts"]
    used = next(i for i, form in enumerate(contexts) if form != 255)
    reserved = contexts[:used] + bytes([contexts[used] & 31 | 5 << 5]) + contexts[used + 1 :]
    yield "neural-form-reserved", one(contexts=reserved), _BAD, "neural.form"
    yield "neural-no-contexts", one(contexts=b"\xff" * 64), _BAD, "neural.form"
    yield "neural-contexts-missing", until(whole, pieces, "contexts"), _BAD, "neural.form"
    number, size = (struct.unpack("<I", pieces[name])[0] for name in ("escapes", "low_bits"))
    if number < 2 or size < 2:
        raise SystemExit(f"this frame has to have escapes and low bits, not {number} and {size}")
    field, escaped = "neural.escapes", pieces["escaped"]
    yield "neural-escapes-above-the-values", one(escapes=_u4(97)), _BAD, field
    yield "neural-escape-too-few", one(escapes=_u4(number - 1), escaped=escaped[:-2]), _BAD, field
    yield "neural-escape-too-many", one(escapes=_u4(number + 1), escaped=escaped + b"\0\0"), _BAD, field
    yield "neural-escape-above-high", one(escaped=escaped[:-2] + b"\xff\xff"), _BAD, field
    low = pieces["low_bytes"]
    fewer, more = one(low_bits=_u4(size - 1), low_bytes=low[:-1]), one(low_bits=_u4(size + 1), low_bytes=low + b"\0")
    yield "neural-low-bits-too-few", fewer, _BAD, "neural.low_bits"
    yield "neural-low-bits-too-many", more, _BAD, "neural.low_bits"
    yield "neural-low-bits-length", one(low_bits=_u4(2**32 - 1)), _BAD, "neural.low_bits"
    symbols, field = pieces["symbols"], "neural.symbols"
    yield "neural-states-of-symbols-missing", one(symbols=symbols[:15]), _BAD, f"{field}.states"
    yield "neural-state-low", one(symbols=_u4(2**16 - 1) + symbols[4:]), _BAD, f"{field}.states"
    yield "neural-odd-byte", one(symbols=symbols + b"\0"), _BAD, f"{field}.words"
    yield "neural-word-missing", one(symbols=symbols[:-2]), _BAD, f"{field}.words"
    yield "neural-word-too-many", one(symbols=symbols + b"\0\0"), _BAD, f"{field}.words"
    changed_value = edit(whole, 8 + 16, b"\1\2\3\4")
    yield "neural-value-changed", changed_value, _BAD, "decoded_crc"
