"""The faulty vectors of mode predictor: each field out of its range, cut short, or in conflict with the streams."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from inrstore.chunk import frame, modes
from inrstore.chunk.encode import encode_as

from .frames import edit, payload_of, repack, smooth
from .predictor import Pieces, Plan, matrix, pieces_of, predictor_frame
from .predictor_valid import head, textured

Faults = Iterator[tuple[str, bytes, str, str]]


def faulty_predictor() -> Faults:
    """Yield name, bytes, error and field."""
    values = smooth((2, 3, 6, 7), "<i2", 240)
    plan = Plan(seed=240, top=2, sets=3, group_spread=9, peak=60)
    whole, pieces = predictor_frame(values, plan), pieces_of(values, plan)
    if payload_of(whole)[1:] != b"".join(pieces.values()):
        raise SystemExit("a frame is not made of its fields")
    yield from _types(whole)
    yield from _header(whole, pieces)
    yield from _models(whole, pieces)
    yield from _tables(whole, pieces)
    yield from _streams(whole, pieces)
    yield from _zeros()
    yield from _regions()


def changed(whole: bytes, pieces: Pieces, **fields: bytes) -> bytes:
    """Return the frame with some of its fields replaced; `__` in a name stands for a space."""
    named = {name.replace("__", " "): data for name, data in fields.items()}
    if not named.keys() <= pieces.keys():
        raise KeyError(sorted(named.keys() - pieces.keys()))
    return repack(whole, b"\0" + b"".join((pieces | named).values()))


def until(whole: bytes, pieces: Pieces, last: str) -> bytes:
    """Return the frame without the last byte of a field, and all that follows."""
    names = list(pieces)
    kept = b"".join(pieces[name] for name in names[: names.index(last) + 1])
    return repack(whole, b"\0" + kept[:-1])


def _types(whole: bytes) -> Faults:
    for code, name in ((4, "i8"), (8, "u8"), (11, "f8"), (12, "bool")):
        yield f"predictor-of-{name}", edit(whole, 6, bytes([code])), "CorruptChunkError", "predictor.dtype"
    yield "predictor-mode-200", edit(whole, 5, b"\xc8"), "UnsupportedVersionError", "mode"
    turned = edit(whole, 8, struct.pack("<4I", 2, 3, 7, 6))
    yield "predictor-of-another-shape", turned, "CorruptChunkError", "predictor.form"


def _header(whole: bytes, pieces: Pieces) -> Faults:
    bad, limit = "CorruptChunkError", "LimitExceededError"
    i4, u2, u4 = struct.Struct("<i").pack, struct.Struct("<H").pack, struct.Struct("<I").pack
    yield "predictor-flags-reserved", changed(whole, pieces, flags=b"\x04"), bad, "predictor.flags"
    yield "predictor-zeros-of-measurements", changed(whole, pieces, flags=b"\x02"), bad, "predictor.flags"
    yield "predictor-step-0", changed(whole, pieces, step=u4(0)), bad, "predictor.step"
    yield "predictor-low-above-0", changed(whole, pieces, low=i4(1)), limit, "predictor.high"
    yield "predictor-low-minus-65536", changed(whole, pieces, base=u4(65535), low=i4(-65536)), limit, "predictor.high"
    yield "predictor-low-below-the-type", changed(whole, pieces, base=u4(1), low=i4(-2)), bad, "predictor.base"
    yield "predictor-high-below-0", changed(whole, pieces, high=i4(-1)), limit, "predictor.high"
    yield (
        "predictor-high-above-range",
        changed(whole, pieces, base=u4(9), low=i4(-9), high=i4(65527)),
        limit,
        "predictor.high",
    )
    yield "predictor-high-above-the-type", changed(whole, pieces, base=u4(1), high=i4(65535)), bad, "predictor.base"
    yield "predictor-step-beyond-the-type", changed(whole, pieces, step=u4(2**32 - 1)), bad, "predictor.base"
    for top in (0, 3, 16, 255):
        yield f"predictor-top-{top}", changed(whole, pieces, top=bytes([top])), bad, "predictor.top"
    yield "predictor-row-parts-0", changed(whole, pieces, row_parts=u2(0)), bad, "predictor.row_parts"
    yield "predictor-row-parts-5-of-6", changed(whole, pieces, row_parts=u2(4)), bad, "predictor.row_parts"
    yield "predictor-row-parts-7-of-6", changed(whole, pieces, row_parts=u2(7)), bad, "predictor.row_parts"
    yield "predictor-column-parts-0", changed(whole, pieces, column_parts=u2(0)), bad, "predictor.column_parts"
    yield "predictor-column-parts-5-of-7", changed(whole, pieces, column_parts=u2(5)), bad, "predictor.column_parts"
    large = edit(whole, 8, struct.pack("<4I", 1, 3, 1250, 1250))
    yield "predictor-part-above-3-times-2to19", large, limit, "predictor.column_parts"
    yield "predictor-steps", edit(whole, 8, struct.pack("<4I", 2, 1, 1, 12000)), limit, "predictor.steps"
    yield "predictor-4097-measurements", edit(whole, 8, struct.pack("<4I", 4097, 1, 1, 1)), limit, "predictor.order"
    yield "predictor-order-twice", changed(whole, pieces, order=struct.pack("<2H", 1, 1)), bad, "predictor.order"
    yield "predictor-order-beyond", changed(whole, pieces, order=struct.pack("<2H", 0, 2)), bad, "predictor.order"
    for name in ("flags", "base", "step", "low", "high", "top", "row_parts", "column_parts", "order"):
        yield f"predictor-{name.replace('_', '-')}-missing", until(whole, pieces, name), bad, f"predictor.{name}"


def _models(whole: bytes, pieces: Pieces) -> Faults:
    bad, limit = "CorruptChunkError", "LimitExceededError"
    names = [name for name in pieces if name.endswith((" 0 0", " 1 1")) or name.startswith("group")]
    for name in names:
        cut = until(whole, pieces, name)
        yield f"predictor-{name.replace(' ', '-').replace('_', '-')}-missing", cut, bad, f"predictor.{name.split()[0]}"

    def one(name: str, data: bytes) -> bytes:
        return changed(whole, pieces, **{name.replace(" ", "__"): data})

    yield "predictor-group-shift-15", one("group_shift 1", b"\x0f"), limit, "predictor.group_shift"
    field = "predictor.group_weights"
    yield "predictor-group-weights-width-41", one("group_weights 1", b"\x29\x01" + b"\0" * 6), limit, field
    wide = pieces["group_weights 1"]
    yield "predictor-group-weights-padding", one("group_weights 1", wide[:-1] + bytes([wide[-1] | 128])), bad, field
    least = 2**53 // 65535 + 1
    yield "predictor-group-weights-limit", one("group_weights 1", matrix(np.array([[-least, 0]]))), limit, field
    exact = 2**53 - 65535 * (least - 1)
    yield "predictor-group-weights-limit-by-1", one(
        "group_weights 1", matrix(np.array([[least - 1, exact]]))), limit, field  # fmt: skip
    for value in (3, 13):
        yield f"predictor-fraction-{value}", one("fraction 0 0", bytes([value])), limit, "predictor.fraction"
    for value in (0, 17):
        yield f"predictor-sets-{value}", one("sets 0 0", bytes([value])), limit, "predictor.sets"
    yield "predictor-clip-0", one("clip 0 1", bytes(2)), bad, "predictor.clip"
    clip = struct.unpack("<H", pieces["clip 0 0"])[0]
    flat = np.zeros((3, 22), np.int64)
    flat[1, 4], flat[1, 5] = 2**24 // clip - 4, -4
    flat[1, 21] = 2**24 - clip * (2**24 // clip)
    yield "predictor-weights-limit-by-1", one("weights 0 0", matrix(flat)), limit, "predictor.weights"
    yield "predictor-weights-width-41", one("weights 0 0", b"\x29" + bytes(41)), limit, "predictor.weights"
    large = one("thresholds 0 0", matrix(np.array([[2**24 - 1], [1]])))
    yield "predictor-thresholds-limit", large, limit, "predictor.thresholds"
    for name, row in (("negative", [-1, 5]), ("equal", [5, 0]), ("descending", [5, -1])):
        yield (
            f"predictor-thresholds-{name}",
            one("thresholds 0 0", matrix(np.array([row]).T)),
            bad,
            "predictor.thresholds",
        )
    for name, rows in (("activity_weights", 22), ("error_weights", 10)):
        flat = np.zeros((rows, 1), np.int64)
        flat[1] = -1
        yield f"predictor-{name.replace('_', '-')}-negative", one(f"{name} 0 0", matrix(flat)), bad, f"predictor.{name}"
        flat[1] = 2**24 // (clip if name[0] == "a" else 4095) + 1
        yield f"predictor-{name.replace('_', '-')}-limit", one(f"{name} 0 0", matrix(flat)), limit, f"predictor.{name}"
    large = one("activity_scale 0 0", struct.pack("<H", 1024))
    yield "predictor-activity-scale-1024", large, limit, "predictor.activity_scale"


def _tables(whole: bytes, pieces: Pieces) -> Faults:
    bad, limit = "CorruptChunkError", "LimitExceededError"
    c = next(name.split()[1] for name in pieces if name.startswith("scale "))
    u2 = struct.Struct("<H").pack

    def one(name: str, data: bytes) -> bytes:
        return changed(whole, pieces, **{f"{name}__{c}": data})

    for value in (0xA0, 0xC0, 0xE0, 0xFE):
        yield f"predictor-form-{value}", one("form", bytes([value])), bad, "predictor.form"
    yield "predictor-scale-0", one("scale", u2(0)), bad, "predictor.scale"
    yield "predictor-peak-0", one("peak", u2(0)), limit, "predictor.peak"
    yield "predictor-peak-501", one("peak", u2(501)), limit, "predictor.peak"
    wide = changed(whole, pieces, **{f"form__{c}": b"\x0f", f"peak__{c}": u2(2)})
    yield "predictor-peak-wider-than-the-range", wide, limit, "predictor.peak"
    yield "predictor-escape-0", one("escape", u2(0)), limit, "predictor.escape"
    yield "predictor-escape-2001", one("escape", u2(2001)), limit, "predictor.escape"
    for name in ("form", "scale", "peak", "escape"):
        yield f"predictor-{name}-missing", until(whole, pieces, f"{name} {c}"), bad, f"predictor.{name}"
    unused = {name: b"\xff" if name.startswith("form ") else b"" for name in pieces
              if name.split()[0] in ("form", "scale", "peak", "escape")}  # fmt: skip
    yield "predictor-no-contexts", repack(whole, b"\0" + b"".join((pieces | unused).values())), bad, "predictor.form"
    used = [name.split()[1] for name in pieces if name.startswith("scale ")][-1]
    unused = {f"{name}__{used}": b"" for name in ("scale", "peak", "escape")} | {f"form__{used}": b"\xff"}
    yield "predictor-context-not-there", changed(whole, pieces, **unused), bad, "predictor.form"


def _streams(whole: bytes, pieces: Pieces) -> Faults:
    bad = "CorruptChunkError"
    u4, symbols = struct.Struct("<I").pack, pieces["symbols"]
    number = struct.unpack("<I", pieces["escapes"])[0]
    size = struct.unpack("<I", pieces["low_bits"])[0]
    if number < 2 or size < 2:
        raise SystemExit("this frame has to have escapes and low bits")
    yield "predictor-lanes-13", changed(whole, pieces, lanes=b"\x0d"), "LimitExceededError", "predictor.lanes"
    many = edit(whole, 8, struct.pack("<4I", 2, 3, 149, 147))  # 2^17 + 346 values, 4 states
    yield "predictor-lanes-too-few", many, "LimitExceededError", "predictor.lanes"
    yield "predictor-lanes-missing", until(whole, pieces, "lanes"), bad, "predictor.lanes"
    yield "predictor-escapes-above-the-values", changed(whole, pieces, escapes=u4(253)), bad, "predictor.escapes"
    field = "predictor.escapes"
    fewer = changed(whole, pieces, escapes=u4(number - 1), escaped=pieces["escaped"][:-2])
    yield "predictor-escape-too-few", fewer, bad, field
    more = changed(whole, pieces, escapes=u4(number + 1), escaped=pieces["escaped"] + b"\0\0")
    yield "predictor-escape-too-many", more, bad, field
    above = changed(whole, pieces, escaped=pieces["escaped"][:-2] + b"\xff\xff")
    yield "predictor-escape-above-high", above, bad, field
    field = "predictor.low_bits"
    fewer = changed(whole, pieces, low_bits=u4(size - 1), low_bytes=pieces["low_bytes"][:-1])
    yield "predictor-low-bits-too-few", fewer, bad, field
    more = changed(whole, pieces, low_bits=u4(size + 1), low_bytes=pieces["low_bytes"] + b"\0")
    yield "predictor-low-bits-too-many", more, bad, field
    last = pieces["low_bytes"][-1]
    if last >= 128:
        raise SystemExit("the last of the low bits has to be left over")
    padding = changed(whole, pieces, low_bytes=pieces["low_bytes"][:-1] + bytes([last | 128]))
    yield "predictor-low-bits-padding", padding, bad, field
    yield "predictor-low-bits-length", changed(whole, pieces, low_bits=u4(2**32 - 1)), bad, field
    field = "predictor.symbols"
    yield "predictor-states-missing", repack(whole, payload_of(whole)[: 15 - len(symbols)]), bad, f"{field}.states"
    yield (
        "predictor-state-below-2to16",
        changed(whole, pieces, symbols=u4(2**16 - 1) + symbols[4:]),
        bad,
        f"{field}.states",
    )
    yield "predictor-odd-byte", changed(whole, pieces, symbols=symbols + b"\0"), bad, f"{field}.words"
    yield "predictor-word-missing", changed(whole, pieces, symbols=symbols[:-2]), bad, f"{field}.words"
    yield "predictor-word-too-many", changed(whole, pieces, symbols=symbols + b"\0\0"), bad, f"{field}.words"
    yield "predictor-no-words", changed(whole, pieces, symbols=symbols[:16]), bad, f"{field}.words"
    constant = np.zeros((6, 7), "u1")
    constant[0, 0] = 1
    plan = Plan(sets=1, noise=0, peak=1, shift=0, phased=False, escape=1)
    small, fields = predictor_frame(constant, plan), pieces_of(constant, plan)
    ends = pieces_of(constant, plan, last=2**16 + 1)["symbols"]
    yield "predictor-end-state", changed(small, fields, symbols=ends), bad, f"{field}.states"
    yield "predictor-value-changed", edit(small, frame.header_size(2) - 8, b"\1\2\3\4"), bad, "decoded_crc"
    raw = encode_as(modes.RAW, np.empty((0, 3), "<i2"))
    yield "predictor-without-values", edit(raw, 5, b"\5"), bad, "shape"


def _regions() -> Faults:
    bad, limit = "CorruptChunkError", "LimitExceededError"
    values, u2 = textured((2, 34, 64), 242), struct.Struct("<H").pack
    plan = Plan(seed=242, region=(34, 32), sets=1, noise=0, region_spread=2)
    whole, pieces = predictor_frame(values, plan), pieces_of(values, plan)
    name, found = "region_weights 0 0", pieces["region_weights 0 0"]

    def one(data: bytes) -> bytes:
        return changed(whole, pieces, region_weights__0__0=data)

    for value in (0x08, 0x10, 0x20, 0x40, 0x80):
        yield f"predictor-flags-{value}", changed(whole, pieces, flags=bytes([value])), bad, "predictor.flags"
    for field, most in (("region_rows", 34), ("region_columns", 64)):
        for value in (0, 15, most + 1):
            cell = changed(whole, pieces, **{field: u2(value)})
            yield f"predictor-{field.replace('_', '-')}-{value}", cell, limit, f"predictor.{field}"
    for field in ("region_rows", "region_columns", "region_shift 0 0", name):
        cut = until(whole, pieces, field)
        yield (
            f"predictor-{field.replace('_', '-').replace(' ', '-')}-missing",
            cut,
            bad,
            f"predictor.{field.split()[0]}",
        )
    for value in (13, 254):
        data = changed(whole, pieces, region_shift__0__0=bytes([value]))
        yield f"predictor-region-shift-{value}", data, limit, "predictor.region_shift"
    few = changed(whole, pieces, region_columns=u2(31))
    yield "predictor-regions-of-too-few-values", few, limit, "predictor.region_shift"
    field, rows = "predictor.region_weights", np.zeros((2, 22), np.int64)
    yield "predictor-region-weights-of-41-bits", one(b"\x29" + found[1:]), limit, field
    rows[:, 2] = 1
    yield "predictor-region-weights-padding", one(matrix(rows)[:-1] + b"\x80"), bad, field
    rows[:, 2] = 0
    rows[1, 2] = -(2**24) + 3
    large = changed(whole, pieces, region_weights__0__0=matrix(rows), region_shift__0__0=b"\2")
    yield "predictor-region-weights-above-2to25", large, limit, field
    clip = struct.unpack("<H", pieces["clip 0 0"])[0]
    flat = np.zeros((1, 22), np.int64)
    flat[0, 4], flat[0, 21] = 5, 7
    rows[1, 2], rows[1, 21] = -(2**24 // clip - 5), 2**24 % clip - 7
    at_limit = {"weights__0__0": matrix(flat), "region_weights__0__0": matrix(rows)}
    yield "predictor-region-weights-limit-by-1", changed(whole, pieces, **at_limit), limit, field


def _zeros() -> Faults:
    bad, limit = "CorruptChunkError", "LimitExceededError"
    values, u4 = head((6, 9, 8), 241), struct.Struct("<I").pack
    plan = Plan(seed=241, zeros=True, top=2, base=2**15, peak=60)
    whole, pieces = predictor_frame(values, plan), pieces_of(values, plan)
    stream, counts = pieces["flags_stream"], pieces["flag_counts"]

    def coded(data: bytes) -> bytes:
        return changed(whole, pieces, flags_length=u4(len(data)), flags_stream=data)

    field = "predictor.flag_counts"
    yield "predictor-flag-count-0", changed(whole, pieces, flag_counts=bytes(2) + counts[2:]), bad, field
    yield "predictor-flag-count-16384", changed(whole, pieces, flag_counts=counts[:-2] + b"\0\x40"), bad, field
    yield "predictor-flag-counts-missing", until(whole, pieces, "flag_counts"), bad, field
    flat = np.zeros((22, 1), np.int64)
    flat[3], flat[4] = 2**24 - 1, -1
    field = "predictor.flag_weights"
    yield "predictor-flag-weights-limit", changed(whole, pieces, flag_weights__0__0=matrix(flat)), limit, field
    yield "predictor-flag-weights-missing", until(whole, pieces, "flag_weights 0 1"), bad, field
    field = "predictor.flag_stream"
    yield "predictor-flags-length", changed(whole, pieces, flags_length=u4(2**32 - 1)), bad, field
    yield "predictor-flag-stream-missing", until(whole, pieces, "flags_stream"), bad, field
    yield "predictor-flags-states-missing", coded(stream[:15]), bad, f"{field}.states"
    yield "predictor-flags-state-below-2to16", coded(u4(2**16 - 1) + stream[4:]), bad, f"{field}.states"
    yield "predictor-flags-odd-byte", coded(stream + b"\0"), bad, f"{field}.words"
    yield "predictor-flags-word-missing", coded(stream[:-2]), bad, f"{field}.words"
    yield "predictor-flags-word-too-many", coded(stream + b"\0\0"), bad, f"{field}.words"
    lie = pieces_of(values, plan, lie=True)
    zero = repack(whole, b"\0" + b"".join(lie.values()))
    yield "predictor-zero-without-its-flag", zero, bad, "predictor.flag_stream"
