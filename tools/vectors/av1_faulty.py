"""The faulty vectors of mode av1: each field out of its range, each syntax element that section 15.2 forbids."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from inrstore.chunk import frame

from .av1 import Film, av1_frame
from .av1_streams import delayed, stream, units_of
from .frames import edit, like, patch, payload_of, repack
from .inloop import FACES, Filter

Faults = Iterator[tuple[str, bytes, str, str]]
_BAD, _LIMIT = "CorruptChunkError", "LimitExceededError"
_SHAPE = (3, 20, 21)
_FIELDS = {"flags": 1, "rows": 1, "columns": 1, "shift": 1, "exponent": 1, "low": 4, "high": 4, "gain": 4, "offset": 8}
_AT = {name: 1 + sum(list(_FIELDS.values())[:i]) for i, name in enumerate(_FIELDS)}  # behind the envelope
_HEADER = 1 + sum(_FIELDS.values())


def faulty_av1() -> Faults:
    """Yield name, bytes, error and field."""
    whole = av1_frame(like(_SHAPE, "<i2"), Film(name="three"))
    if payload_of(whole)[_HEADER:] != stream("three"):
        raise SystemExit("a frame is not made of its fields")
    yield from _headers(whole)
    yield from _corrections()
    yield from _units(whole)
    yield from _sequences(whole)
    yield from _frame_headers(whole)
    yield from _payloads(whole)


def _headers(whole: bytes) -> Faults:
    def one(name: str, new: bytes, of: bytes = whole) -> bytes:
        return patch(of, _AT[name], new)

    def shaped(of: bytes, *shape: int) -> bytes:
        return edit(of, 8, struct.pack(f"<{len(shape)}I", *shape))

    for name, at in _AT.items():
        short = repack(whole, payload_of(whole)[: at + _FIELDS[name] - 1])
        yield f"av1-{name}-missing", short, _BAD, f"av1.{name}"
    yield "av1-stream-missing", repack(whole, payload_of(whole)[:_HEADER]), _BAD, "av1.stream"
    yield "av1-of-bool", edit(whole, 6, b"\x0c"), _BAD, "mode"
    for flags in (2, 128):
        yield f"av1-flags-{flags}", one("flags", bytes([flags])), _BAD, "av1.flags"
    yield "av1-rows-3", one("rows", b"\3"), _BAD, "av1.rows"
    yield "av1-rows-255", one("rows", b"\xff"), _BAD, "av1.rows"
    yield "av1-columns-3", one("columns", b"\3"), _BAD, "av1.columns"
    yield "av1-columns-are-rows", one("columns", b"\1"), _BAD, "av1.columns"
    flat = whole[:7] + b"\1" + whole[8:12] + whole[20:]
    yield "av1-of-one-axis", edit(flat, 4, flat[4:8]), _BAD, "av1.rows"
    line = one("columns", b"\1", one("rows", b"\0"))
    yield "av1-of-one-axis-rows-0", edit(line[:7] + b"\1" + line[8:12] + line[20:], 4, b"\1"), _BAD, "av1.columns"
    point = whole[:7] + b"\0" + whole[20:]
    yield "av1-of-no-axes", edit(point, 4, b"\1"), _BAD, "av1.rows"
    for shift in (0, 46):
        yield f"av1-shift-{shift}", one("shift", bytes([shift])), _LIMIT, "av1.shift"
    yield "av1-low-above-high", one("low", struct.pack("<2i", 6, 5)), _BAD, "av1.low"
    yield "av1-high-above-the-type", one("high", struct.pack("<i", 2**15)), _BAD, "av1.exponent"
    yield "av1-low-below-the-type", one("low", struct.pack("<i", -(2**15) - 1)), _BAD, "av1.exponent"
    yield "av1-exponent-negative", one("exponent", b"\xff"), _BAD, "av1.exponent"
    yield "av1-exponent-beyond-the-type", one("exponent", b"\1"), _BAD, "av1.exponent"
    long = av1_frame(like(_SHAPE, "<i8"), Film(name="three", low=-9, high=9))
    yield "av1-exponent-41", one("exponent", b"\x29", long), _BAD, "av1.exponent"
    real = av1_frame(like(_SHAPE, "<f4"), Film(name="three"))
    for exponent in (101, -101):
        forged = one("exponent", struct.pack("b", exponent), real)
        yield f"av1-real-exponent{exponent:+}", forged, _BAD, "av1.exponent"
    half = av1_frame(like(_SHAPE, "<f2"), Film(name="three"))
    yield "av1-half-low-beyond-the-type", one("low", struct.pack("<i", -65505), half), _BAD, "av1.exponent"
    yield "av1-gain-0", one("gain", bytes(4)), _BAD, "av1.gain"
    for sign in (1, -1):
        forged = one("offset", struct.pack("<q", sign * 2**52))
        yield f"av1-offset-{'minus-' * (sign < 0)}2to52", forged, _LIMIT, "av1.offset"
    yield "av1-offset-minus-2to63", one("offset", struct.pack("<q", -(2**63))), _LIMIT, "av1.offset"
    # sizes of frames
    yield "av1-frames-above-2to22", shaped(whole, 3, 2048, 2049), _LIMIT, "av1.rows"
    yield "av1-frames-above-2to22-padded", shaped(whole, 3, 1, 65537), _LIMIT, "av1.rows"
    yield "av1-samples-above-2to28", shaped(whole, 65537, 20, 21), _LIMIT, "av1.rows"
    yield "av1-samples-above-2to28-padded", shaped(whole, 2**27, 1, 1), _LIMIT, "av1.rows"
    yield "av1-samples-of-2to28", shaped(whole, 65536, 20, 21), _BAD, "av1.stream"
    yield "av1-frames-of-2048", shaped(whole, 32, 2048, 2048), _BAD, "av1.stream"
    yield "av1-of-another-height", shaped(whole, 3, 65, 21), _BAD, "av1.stream"
    yield "av1-of-another-width", shaped(whole, 3, 20, 65), _BAD, "av1.stream"
    yield "av1-too-many-frames", shaped(whole, 2, 20, 21), _BAD, "av1.stream"
    yield "av1-too-few-frames", shaped(whole, 4, 20, 21), _BAD, "av1.stream"


def _corrections() -> Faults:
    what = Filter(seed=501, offsets=FACES, widths=(3,))
    whole = av1_frame(like(_SHAPE, "<i2"), Film(name="three", shift=8, correction=what))
    size = len(what.build(1).write())
    payload = payload_of(whole)
    yield "av1-corrected-stream-missing", repack(whole, payload[: _HEADER + size]), _BAD, "av1.stream"
    yield "av1-corrected-missing", repack(whole, payload[:_HEADER]), _BAD, "inloop.components"
    yield "av1-corrected-components-2", patch(whole, _HEADER, b"\2"), _BAD, "inloop.components"
    yield "av1-corrected-neighbours-125", patch(whole, _HEADER + 2, b"\x7d"), _LIMIT, "inloop.neighbours"
    many = edit(whole, 8, struct.pack("<3I", 2**26 // 441 + 1, 21, 21))
    yield "av1-corrected-samples-above-2to26", many, _LIMIT, "av1.rows"


def _changed(whole: bytes, data: bytes) -> bytes:
    """Return the frame with another stream."""
    return repack(whole, payload_of(whole)[:_HEADER] + data)


def _flipped(unit: bytes, first: int, bits: str) -> bytes:
    """Return a unit, whose size has one byte, with bits of its payload replaced."""
    number = int.from_bytes(unit[2:], "big")
    low = 8 * (len(unit) - 2) - first - len(bits)
    number = number & ~((1 << len(bits)) - 1 << low) | int(bits, 2) << low
    return unit[:2] + number.to_bytes(len(unit) - 2, "big")


def _units(whole: bytes) -> Faults:
    """Yield what is wrong with the sequence of units, or with the header of one."""
    units = units_of(stream("three"))  # the last shows the frame that was hidden
    sequence, key, hidden, inter, shows = units

    def one(name: str, *made: bytes) -> tuple[str, bytes, str, str]:
        return f"av1-{name}", _changed(whole, b"".join(made)), _BAD, "av1.stream"

    def head(number: int, byte: int) -> list[bytes]:
        return [*units[:number], bytes([byte]) + units[number][1:], *units[number + 1 :]]

    yield one("unit-forbidden-bit", *head(0, sequence[0] | 0x80))
    yield one("unit-forbidden-bit-later", *head(2, hidden[0] | 0x80))
    yield one("unit-reserved-bit", *head(1, key[0] | 1))
    extended = bytes([key[0] | 4, 0]) + key[1:]
    yield one("unit-of-a-layer", sequence, extended, *units[2:])
    yield one("unit-without-its-size", *units[:4], bytes([shows[0] & ~2]) + shows[2:])
    yield one("unit-size-of-5-bytes", sequence, key[:1] + bytes([key[1] | 0x80, 0x80, 0x80, 0x80, 0]) + key[2:],
              *units[2:])  # fmt: skip
    yield one("unit-size-missing", *units, b"\x32")
    yield one("unit-size-cut", *units[:4], b"\x1a\x81")
    yield one("unit-size-of-2to28", *units[:4], b"\x1a\xff\xff\xff\x7f" + shows[2:])
    yield one("unit-cut", *units[:4], shows[:-1])
    yield one("unit-size-too-large", sequence, key[:1] + bytes([key[1] + 90]) + key[2:], *units[2:])
    yield one("unit-empty", sequence, b"\x32\0", *units[2:])
    yield one("no-sequence", *units[1:])
    yield one("sequence-alone", sequence)
    yield one("sequence-empty", b"\x0a\0", *units[1:])
    yield one("sequence-cut", b"\x0a\x05" + sequence[2:7], *units[1:])
    yield one("second-sequence", sequence, key, sequence, *units[2:])
    yield one("second-sequence-first", sequence, *units)
    yield one("delimiter-first", b"\x12\0", *units)
    yield one("delimiter-inside", sequence, key, b"\x12\0", *units[2:])
    yield one("delimiter-last", *units, b"\x12\0")
    yield one("padding", *units[:2], b"\x7a\x02\x00\x80", *units[2:])
    yield one("metadata", *units[:2], b"\x2a\x04\x01\x00\x10\x80", *units[2:])
    yield one("tile-list", *units[:2], b"\x42" + key[1:], *units[2:])
    yield one("tile-group", *units[:2], b"\x22" + key[1:], *units[2:])
    yield one("redundant-header", sequence, key, b"\x3a" + key[1:], *units[2:])
    yield one("reserved-type", sequence, key, b"\x4a\x01\x80", *units[2:])
    yield one("type-0", sequence, key, b"\x02\x01\x80", *units[2:])
    yield one("frame-header-without-frame", sequence, b"\x1a" + key[1:], *units[2:])
    yield one("frame-of-a-header-that-shows", *units[:4], b"\x32" + shows[1:])
    yield one("byte-after-the-last", *units, b"\0")
    yield one("hidden-frame-last", sequence, key, inter, shows, hidden)
    yield one("frame-twice", *units, inter)
    yield one("shown-once-more", *units, shows)
    yield one("nothing-to-show", sequence, shows, shows, shows)
    yield one("frames-missing", sequence, key)
    yield one("key-frame-twice", sequence, key, key, key)
    yield one("inter-frame-first", sequence, inter, hidden, shows)
    yield one("hidden-frames-too-many", sequence, key, hidden, hidden, hidden, shows, shows)


_SEQUENCE = (
    ("profile-1", 0, "001"), ("profile-4", 0, "100"), ("still-picture", 3, "1"), ("reduced-header", 3, "11"),
    ("reduced-header-of-no-still-picture", 4, "1"), ("timing-information", 5, "1"),
    ("second-operating-point", 7, "00001"), ("thirty-two-operating-points", 7, "11111"),
    ("operating-point-of-layers", 12, "000100000001"), ("operating-point-bit", 12, "100000000000"),
)  # fmt: skip
"""Name, first bit and bits, in the payload of a sequence header."""


def _sequences(whole: bytes) -> Faults:
    """Yield sequence headers that section 15.2 forbids."""
    sequence, *rest = units_of(stream("three"))

    def one(name: str, made: bytes) -> tuple[str, bytes, str, str]:
        return f"av1-sequence-{name}", _changed(whole, made + b"".join(rest)), _BAD, "av1.stream"

    for name, first, bits in _SEQUENCE:
        yield one(name, _flipped(sequence, first, bits))
    for frames in (11, 16):
        yield one(f"display-delay-{frames}", delayed(sequence, frames))
    yield one("display-delay-11-tier", delayed(sequence, 11, level=8))
    places = elements(sequence)
    for side in ("width", "height"):
        at, count = places[side]
        if count != 6:
            raise SystemExit("64 does not have six bits")
        for value in (62, 0):
            yield one(f"{side}-{value + 1}", _flipped(sequence, at, f"{value:06b}"))
    for name in ("frame-numbers", "superres", "film-grain", "colours"):
        yield one(name, _flipped(sequence, places[name][0], "1"))
    yield one("8-bits", _flipped(sequence, places["high-bitdepth"][0], "0"))
    for name, count in (("8-bits", 2), ("film-grain", 2), ("superres", 2), ("frame-numbers", 3), ("key-frames", 3),
                        ("still", 1), ("reduced-still", 1), ("colours", 2), ("timing", 2), ("profile-1", 2),
                        ("resized", 3)):  # fmt: skip
        small = edit(whole, 8, struct.pack("<3I", count, *_SHAPE[1:]))
        yield f"av1-stream-of-{name}", _changed(small, stream(name)), _BAD, "av1.stream"
    gray = units_of(stream("gray"))
    yield "av1-stream-of-two", _changed(whole, b"".join([sequence, *gray[1:]])), _BAD, "av1.stream"


def elements(unit: bytes) -> dict[str, tuple[int, int]]:
    """Return first bit and number of bits of elements in the payload of a sequence header like that of SVT-AV1 4.1."""
    number, length = int.from_bytes(unit[2:], "big"), 8 * (len(unit) - 2)

    def value(first: int, count: int) -> int:
        return number >> (length - first - count) & ((1 << count) - 1)

    at = 24 + 5 + (value(24, 5) > 7)
    wide, high = value(at, 4) + 1, value(at + 4, 4) + 1
    out = {"width": (at + 8, wide), "height": (at + 8 + wide, high)}
    at += 8 + wide + high
    out["frame-numbers"] = at, 1
    at += 8
    order = value(at, 1)
    at += 1 + 2 * order
    chosen = value(at, 1)
    tools = 2 if chosen else value(at + 1, 1)
    at += 1 if chosen else 2
    if tools:
        at += 1 if value(at, 1) else 2
    at += 3 * order
    out["superres"], out["high-bitdepth"], out["gray"], out["colours"] = (at, 1), (at + 3, 1), (at + 4, 1), (at + 5, 1)
    out["film-grain"] = at + (7 if value(at + 4, 1) else 10), 1
    return out


def _frame_headers(whole: bytes) -> Faults:
    """Yield frame headers that section 15.2 forbids: show_existing_frame, frame_type (2), show_frame, and so on."""
    sequence, key, hidden, inter, shows = units_of(stream("three"))

    def one(name: str, made: Sequence[bytes]) -> tuple[str, bytes, str, str]:
        return f"av1-frame-{name}", _changed(whole, b"".join([sequence, *made])), _BAD, "av1.stream"

    yield one("that-is-there", (_flipped(key, 0, "1"), hidden, inter, shows))
    for number, name in ((1, "inter"), (2, "intra"), (3, "switch")):
        yield one(f"first-{name}", (_flipped(key, 1, f"{number:02b}"), hidden, inter, shows))
    yield one("second-key", (key, _flipped(hidden, 1, "00"), inter, shows))
    yield one("second-switch", (key, hidden, _flipped(inter, 1, "11"), shows))
    yield one("first-hidden", (_flipped(key, 3, "0"), hidden, inter, shows))
    yield one("header-does-not-show", (key, hidden, inter, _flipped(shows, 0, "0")))
    # a key frame that is shown: disable_cdf_update, allow_screen_content_tools (and force_integer_mv), the size
    sized = _flipped(key, 4, "001" if not _bit(key, 5) else "01")
    yield one("key-of-another-size", (sized, hidden, inter, shows))
    # other frames have error_resilient_mode, hidden ones showable_frame before it
    yield one("inter-of-another-size", (key, hidden, _flipped(inter, 4, "0001"), shows))
    yield one("hidden-of-another-size", (key, _flipped(hidden, 4, "10001"), inter, shows))
    yield one("header-of-a-byte", (_resized(key, 1), hidden, inter, shows))


def _bit(unit: bytes, place: int) -> int:
    return unit[2 + place // 8] >> (7 - place % 8) & 1


def _payloads(whole: bytes) -> Faults:
    """Yield streams that decoders refuse."""
    sequence, key, hidden, inter, shows = units_of(stream("three"))

    def one(name: str, *made: bytes) -> tuple[str, bytes, str, str]:
        return f"av1-payload-{name}", _changed(whole, b"".join([sequence, *made])), _BAD, "av1.stream"

    yield one("cut", _resized(key, 12), hidden, inter, shows)
    yield one("header-alone", _resized(key, 4), hidden, inter, shows)
    yield one("shows-what-is-not-there", b"\x1a\x01\x98", key, inter)
    yield one("delimiters", *(b"\x12\0" + u for u in (key, hidden, inter, shows)))
    damaged = edit(whole, frame.header_size(3) - 8, b"\1\2\3\4")
    yield "av1-decoded-crc", damaged, _BAD, "decoded_crc"


def _resized(unit: bytes, length: int) -> bytes:
    """Return a unit with a payload that is cut."""
    return unit[:1] + bytes([length]) + unit[2 : 2 + length]
