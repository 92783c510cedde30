"""The faulty vectors of mode transform: each field out of its range, cut short, or in conflict with the streams."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from inrstore.chunk import frame, modes
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.entropy.bits import write_matrix
from inrstore.chunk.transform.contexts import USUAL

from .frames import edit, like, payload_of, repack
from .transform import Pieces, Plan, joined, payload_for, pieces_of, transform_frame
from .transform_valid import beyond

Faults = Iterator[tuple[str, bytes, str, str]]
_BAD, _LIMIT = "CorruptChunkError", "LimitExceededError"
_u2, _u4, _i4 = struct.Struct("<H").pack, struct.Struct("<I").pack, struct.Struct("<i").pack
_SHAPE = (3, 5, 7)
_PLAN = Plan(seed=300, axis=0, levels=(0, 1, 1), components=2, density=0.9, largest=60, column_shifts=[0, 1], lanes=1,
             offsets=[900, -20, 30])  # fmt: skip


def faulty_transform() -> Faults:
    """Yield name, bytes, error and field."""
    whole = transform_frame(like(_SHAPE, "<i2"), _PLAN)
    pieces = pieces_of(payload_of(whole)[1:], _SHAPE)
    if b"\0" + joined(pieces) != payload_of(whole) or not all(pieces.values()):
        raise SystemExit("a frame is not made of its fields")
    yield from _missing(whole, pieces)
    yield from _shapes(whole, pieces)
    yield from _ranges(whole, pieces)
    yield from _matrices(whole, pieces)
    yield from _streams(whole, pieces)


def changed(whole: bytes, pieces: Pieces, **fields: bytes) -> bytes:
    """Return the frame with some of its fields replaced."""
    if not fields.keys() <= pieces.keys():
        raise KeyError(sorted(fields.keys() - pieces.keys()))
    return repack(whole, b"\0" + joined(pieces | fields))


def _missing(whole: bytes, pieces: Pieces) -> Faults:
    names = list(pieces)
    for name in names[:-2]:
        kept = b"".join(pieces[n] for n in names[: names.index(name) + 1])[:-1]
        field = {"bit_bytes": "bits", "sign_bytes": "signs"}.get(name, name)
        yield f"transform-{name.replace('_', '-')}-missing", repack(whole, b"\0" + kept), _BAD, f"transform.{field}"
    yield "transform-states-missing", changed(whole, pieces, states=bytes(3), words=b""), _BAD, "transform.states"


def _shapes(whole: bytes, pieces: Pieces) -> Faults:
    def shaped(*shape: int, **fields: bytes) -> bytes:
        return edit(changed(whole, pieces, **fields), 8, struct.pack("<3I", *shape))

    yield "transform-of-bool", edit(whole, 6, b"\x0c"), _BAD, "mode"
    raw = encode_as(modes.RAW, np.empty((0, 3), "<i2"))
    yield "transform-without-values", edit(raw, 5, b"\4"), _BAD, "shape"
    yield "transform-channel-axis-3", changed(whole, pieces, channel_axis=b"\3"), _BAD, "transform.channel_axis"
    yield "transform-channel-axis-254", changed(whole, pieces, channel_axis=b"\xfe"), _BAD, "transform.channel_axis"
    yield "transform-measurements-4097", shaped(4097, 64, 64), _LIMIT, "transform.channel_axis"
    yield "transform-levels-9", shaped(3, 5, 1000, levels=b"\0\1\x09"), _LIMIT, "transform.levels"
    yield "transform-levels-255", changed(whole, pieces, levels=b"\0\1\xff"), _LIMIT, "transform.levels"
    yield "transform-levels-of-1", changed(whole, pieces, levels=b"\1\1\1"), _LIMIT, "transform.levels"
    yield "transform-levels-4-of-5", changed(whole, pieces, levels=b"\0\4\1"), _LIMIT, "transform.levels"
    yield "transform-components-0", changed(whole, pieces, components=_u2(0)), _LIMIT, "transform.components"
    yield "transform-components-4-of-3", changed(whole, pieces, components=_u2(4)), _LIMIT, "transform.components"
    large = shaped(1100, 40, 40, components=_u2(1025))
    yield "transform-components-1025", large, _LIMIT, "transform.components"
    yield "transform-components-above-positions", shaped(9, 2, 2, components=_u2(5)), _LIMIT, "transform.components"
    yield "transform-of-another-shape", edit(whole, 8, struct.pack("<3I", 3, 7, 5)), _BAD, "transform.bits"


def _ranges(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    for flags in (3, 6, 7, 8, 9, 16, 32, 64, 128):
        yield f"transform-flags-{flags}", one(flags=bytes([flags])), _BAD, "transform.flags"
    yield "transform-shared-header-not-there", one(flags=b"\2"), _BAD, "transform.digest"
    for shift in (0, 46):
        yield f"transform-shift-{shift}", one(shift=bytes([shift])), _LIMIT, "transform.shift"
    yield "transform-offset-shift-46", one(offset_shift=b"\x2e"), _LIMIT, "transform.offset_shift"
    yield "transform-low-above-high", one(low=_i4(2001)), _BAD, "transform.low"
    yield "transform-high-above-the-type", one(high=_i4(2**15)), _BAD, "transform.exponent"
    yield "transform-low-below-the-type", one(low=_i4(-(2**15) - 1)), _BAD, "transform.exponent"
    yield "transform-exponent-beyond-the-type", one(exponent=b"\5"), _BAD, "transform.exponent"
    yield "transform-exponent-negative", one(exponent=b"\xff"), _BAD, "transform.exponent"
    wide = transform_frame(like(_SHAPE, "<i8"), replace(_PLAN, exponent=40))
    parts = pieces_of(payload_of(wide)[1:], _SHAPE)
    yield "transform-exponent-41", changed(wide, parts, exponent=b"\x29"), _BAD, "transform.exponent"
    unsigned = changed(transform_frame(like(_SHAPE, "<u2"), _PLAN), pieces, low=_i4(-1))
    yield "transform-low-below-0", unsigned, _BAD, "transform.exponent"
    real = transform_frame(like(_SHAPE, "<f4"), _PLAN)
    for exponent in (101, -101):
        forged = changed(real, pieces, exponent=struct.pack("b", exponent))
        yield f"transform-real-exponent{exponent:+}", forged, _BAD, "transform.exponent"
    huge = changed(real, pieces, exponent=b"\x64", high=_i4(2**28))
    yield "transform-real-high-beyond-the-type", huge, _BAD, "transform.exponent"
    half = transform_frame(like(_SHAPE, "<f2"), _PLAN)
    yield "transform-half-low-beyond-the-type", changed(half, pieces, low=_i4(-65505)), _BAD, "transform.exponent"
    yield "transform-lanes-0", one(lanes=_u2(0)), _LIMIT, "transform.lanes"
    yield "transform-lanes-4097", one(lanes=_u2(4097)), _LIMIT, "transform.lanes"
    many = edit(one(lanes=_u2(1)), 8, struct.pack("<3I", 3, 128, 129))
    yield "transform-lanes-too-few", many, _LIMIT, "transform.lanes"
    yield "transform-column-shift-16", one(column_shifts=b"\0\x10"), _LIMIT, "transform.column_shifts"


def _bits(bits: Sequence[int]) -> bytes:
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def _matrices(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    header = _PLAN.header(_SHAPE)[0]
    pairs = np.stack([header.gains, header.offsets], 1)

    def gains(row: int, column: int, number: int) -> bytes:
        out = pairs.copy()
        out[row, column] = number
        return one(gains=write_matrix(out))

    for number in (0, -1, 65536):
        yield f"transform-gain-{number}", gains(1, 0, number), _LIMIT, "transform.gains"
    last = pieces["gains"][:-1] + bytes([pieces["gains"][-1] | 0x80])
    yield "transform-gains-padding", one(gains=last), _BAD, "transform.gains"
    yield "transform-gains-of-41-bits", one(gains=b"\x29" + pieces["gains"][1:]), _LIMIT, "transform.gains"
    for sign in (1, -1):  # with the half that rounds, 2^53
        far = replace(_PLAN, active=0, shift=15, offset_shift=14, offsets=[0, 0, sign * (2**39 - 1)])
        decoded = np.zeros(_SHAPE, "<i2")
        decoded[2] = 2000 * sign
        forged = seal(modes.TRANSFORM, decoded, b"\0" + payload_for(far, _SHAPE), decoded)
        yield f"transform-outputs-of-{'minus-' * (sign < 0)}2to53", forged, _LIMIT, "transform.outputs"
    yield "transform-basis-of-41-bits", one(basis=b"\x29" + pieces["basis"][1:]), _LIMIT, "transform.basis"
    wide = one(basis=write_matrix(header.basis * 2**33), column_shifts=b"\x0f\x0f")
    yield "transform-basis-sums-beyond-2to53", wide, _LIMIT, "transform.outputs"
    for number in (-1, 3):
        active = header.active.copy()
        active[1] = number
        yield f"transform-active-{number}", one(active=write_matrix(active[:, None])), _BAD, "transform.active"

    # Three numbers in one column: codes of no kind, Rice code that ends early or goes on too long, sums too large.
    for code in (41, 63, 99, 127, 169, 227):
        yield f"transform-active-code-{code}", one(active=bytes([code]) + bytes(80)), _LIMIT, "transform.active"
    short = one(active=b"\x40", lanes=b"", bits=b"", bit_bytes=b"", signs=b"", sign_bytes=b"", states=b"", words=b"")
    yield "transform-active-ends-early", short, _BAD, "transform.active"
    for zeros in (63, 64):  # 64 is none of Rice code, 63 no number of components
        yield f"transform-active-after-{zeros}-zeros", one(active=b"\x40" + _bits([0] * zeros + [1] * 40)), _BAD, \
            "transform.active"  # fmt: skip
    gain = _bits(([0] * 39 + [1]) * 3)
    yield "transform-gains-sums-beyond-2to39", one(gains=bytes([128 + 40, 0]) + gain), _LIMIT, "transform.gains"

    rows = header.weights.reshape(-1, 9)

    def weights(row: int, column: int, number: int) -> bytes:
        out = rows.copy()
        out[row, column] = number
        return one(weights=write_matrix(out - USUAL.reshape(-1, 9)[: len(out)]))

    yield "transform-weight-negative", weights(3, 2, -1), _BAD, "transform.weights"
    yield "transform-weight-alone-negative", weights(0, 8, -1), _BAD, "transform.weights"
    counts = (6, 6, 12, 8, 1, 6, 7, 42, 0)
    for column in range(9):
        others = sum(4080 * n * int(w) for n, w in zip(counts, rows[5], strict=True)) + int(rows[5, 8])
        each = 4080 * counts[column] or 1
        others -= each * int(rows[5, column])
        most = -(-(2**24 - others) // each)
        yield f"transform-weight-{column}-limit", weights(5, column, most), _LIMIT, "transform.weights"
    yield "transform-weight-far-beyond", weights(11, 7, 2**38), _LIMIT, "transform.weights"


def _streams(whole: bytes, pieces: Pieces) -> Faults:
    def one(**fields: bytes) -> bytes:
        return changed(whole, pieces, **fields)

    def given(plan: Plan, *values: int) -> bytes:
        """Return the frame of one subband with these coefficients; decoding is not tried."""
        row = np.array(values, np.int64).reshape(1, 1, 1, -1)
        like_ = transform_frame(like((len(values),), "<i2"), replace(plan, density=0.0))
        return repack(like_, b"\0" + payload_for(plan, (len(values),), [row]))

    line = Plan(levels=(0, 0, 0), lanes=1)
    bits, signs = pieces["bit_bytes"], pieces["sign_bytes"]
    for name in ("bits", "signs"):
        yield f"transform-{name}-length-long", one(**{name: _u4(2**32 - 1)}), _BAD, f"transform.{name}"
    yield "transform-bits-too-many", one(bits=_u4(len(bits) + 1), bit_bytes=bits + b"\0"), _BAD, "transform.bits"
    yield "transform-bits-too-few", one(bits=_u4(len(bits) - 1), bit_bytes=bits[:-1]), _BAD, "transform.bits"
    escaped = given(line, 40)
    parts = pieces_of(payload_of(escaped)[1:], (1,))
    # 40 - 1 - 17 + 4 is 26: two zeros and a one, then 26 - 16 in four bits; a bit of padding.
    if parts["bit_bytes"] != bytes([0b0_1010_100]):
        raise SystemExit("an escape is not where it should be")
    yield "transform-bits-padding", changed(escaped, parts, bit_bytes=b"\xd4"), _BAD, "transform.bits"
    long = changed(escaped, parts, bits=_u4(6), bit_bytes=(1 << 22).to_bytes(6, "little"))
    yield "transform-escape-of-22-zeros", long, _LIMIT, "transform.bits"
    endless = changed(escaped, parts, bit_bytes=b"\0")
    yield "transform-escape-of-zeros-alone", endless, _BAD, "transform.bits"
    yield "transform-coefficient-2to24-and-1", given(line, 2**24 + 1), _LIMIT, "transform.bits"
    low = replace(line, weights=(0,) * 8 + (2**24 - 1,))
    yield "transform-coefficient-2to24-and-1-by-low-bits", given(low, 2**24 + 1), _LIMIT, "transform.bits"
    yield "transform-signs-too-many", one(signs=_u4(len(signs) + 1), sign_bytes=signs + b"\0"), _BAD, "transform.signs"
    yield "transform-signs-too-few", one(signs=_u4(len(signs) - 1), sign_bytes=signs[:-1]), _BAD, "transform.signs"
    top = signs[:-1] + bytes([signs[-1] | 0x80])
    yield "transform-signs-padding", one(sign_bytes=top), _BAD, "transform.signs"
    few = given(replace(line, lanes=20), 1, -1, 0, 2)
    parts = pieces_of(payload_of(few)[1:], (4,))
    idle = parts["states"][:-4]
    yield (
        "transform-signs-beyond-the-last-in-a-state",
        changed(few, parts, states=idle + _u4(2**16 + 4)),
        _BAD,
        ("transform.signs"),
    )
    needless = changed(few, parts, signs=_u4(1), sign_bytes=b"\0")
    yield "transform-signs-needless", needless, _BAD, "transform.signs"
    yield "transform-state-ends-at-2to17", changed(few, parts, states=idle + _u4(2**17)), _BAD, "transform.states"
    yield "transform-state-below-2to16", changed(few, parts, states=idle + _u4(2**16 - 1)), _BAD, "transform.states"
    words = pieces["words"]
    yield "transform-odd-byte", one(words=words + b"\0"), _BAD, "transform.words"
    yield "transform-word-missing", one(words=words[:-2]), _BAD, "transform.words"
    yield "transform-word-too-many", one(words=words + b"\0\0"), _BAD, "transform.words"
    cube = transform_frame(like((2, 2, 2), "<i2"), Plan(levels=(1, 1, 1)))
    yield "transform-values-beyond-2to35", repack(cube, b"\0" + beyond(1.001)), _LIMIT, "transform.coefficients"
    yield "transform-decoded-crc", edit(whole, frame.header_size(3) - 8, b"\1\2\3\4"), _BAD, "decoded_crc"
