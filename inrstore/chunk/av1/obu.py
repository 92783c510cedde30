"""Streams of AV1 open bitstream units: what a chunk may hold is checked before any library sees it (section 15.2).

Section numbers here are those of the AV1 Bitstream and Decoding Process Specification, version 1.0.0 with errata 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inrstore.errors import CorruptChunkError

SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, FRAME = 1, 2, 3, 6
DELIMITER = bytes([TEMPORAL_DELIMITER << 3 | 2, 0])
_FIELD = "av1.stream"
_KEY, _SWITCH = 0, 3
_SELECT = 2
_MOST_SIZE_BYTES = 4
_MOST_DELAY = 10  # frames that decoders have room for; libaom refuses more


@dataclass(frozen=True)
class Unit:
    """An open bitstream unit.

    Parameters
    ----------
    kind : int
        Its obu_type.
    whole : memoryview
        With its header.
    payload : memoryview
    """

    kind: int
    whole: memoryview
    payload: memoryview


@dataclass(frozen=True)
class Sequence:
    """What a sequence header says that frame headers depend on."""

    width: int
    height: int
    force_screen_content_tools: int
    force_integer_mv: int


class _Bits:
    """Reads bits, the most significant first (section 4.10)."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        out = 0
        for _ in range(count):
            if self._at >> 3 >= len(self._data):
                raise CorruptChunkError(_FIELD, "a header is too short")
            out = out << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return out

    def zero(self, count: int, what: str) -> None:
        """Refuse bits that are not zero."""
        if self.take(count):
            raise CorruptChunkError(_FIELD, f"{what} is not allowed")


def units(data: bytes | memoryview) -> Iterator[Unit]:
    """Yield the units of a stream (sections 5.3 and 4.10.5).

    Raises
    ------
    CorruptChunkError
        For a unit of several layers, without its size, or that ends beyond the stream.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        start, head = at, view[at]
        if head & 0b10000111 != 0b00000010:
            raise CorruptChunkError(_FIELD, f"the header {head:#04x} of a unit")
        size = 0
        for place in range(_MOST_SIZE_BYTES + 1):
            at += 1
            if place == _MOST_SIZE_BYTES or at >= len(view):
                raise CorruptChunkError(_FIELD, "the size of a unit")
            size |= (view[at] & 0x7F) << (7 * place)
            if not view[at] & 0x80:
                break
        at += 1
        if size > len(view) - at:
            raise CorruptChunkError(_FIELD, f"a unit of {size} bytes, {len(view) - at} are left")
        yield Unit(head >> 3 & 15, view[start : at + size], view[at : at + size])
        at += size


def temporal_units(data: bytes | memoryview, count: int, width: int, height: int) -> list[bytes]:
    """Return the temporal units of a stream, each with its delimiter: one for each frame that is shown.

    Parameters
    ----------
    data : bytes-like
        The stream of a chunk.
    count : int
        Frames that are shown.
    width, height : int
        Of each.

    Raises
    ------
    CorruptChunkError
        For a stream that is not of this size, or uses what section 15.2 forbids.
    """
    found = units(data)
    first = next(found, None)
    if first is None or first.kind != SEQUENCE_HEADER:
        raise CorruptChunkError(_FIELD, "does not begin with a sequence header")
    sequence = read_sequence(first.payload)
    if (sequence.width, sequence.height) != (width, height):
        raise CorruptChunkError(
            _FIELD, f"frames of {sequence.width} x {sequence.height}, {width} x {height} are wanted"
        )
    out, begin, end, coded = list[bytes](), 0, len(first.whole), 0
    for unit in found:
        coded += unit.kind == FRAME
        end += len(unit.whole)
        if _shows(unit, sequence, first=coded == 1 and unit.kind == FRAME):
            out.append(DELIMITER + bytes(data[begin:end]))
            begin = end
        if coded > count or len(out) > count:
            raise CorruptChunkError(_FIELD, f"more than {count} frames")
    if len(out) != count or begin != end:
        raise CorruptChunkError(_FIELD, f"{len(out)} frames, {count} are wanted")
    return out


def read_sequence(payload: memoryview) -> Sequence:
    """Parse a sequence header (section 5.5), and refuse what frames of a chunk do not need."""
    bits = _Bits(payload)
    bits.zero(3, "a profile other than Main")
    bits.zero(2, "a still picture")
    bits.zero(1, "timing information")
    delays = bits.take(1)
    bits.zero(5, "a second operating point")
    bits.zero(12, "an operating point of layers")
    if bits.take(5) > 7:  # seq_level_idx
        bits.take(1)  # seq_tier
    if delays and bits.take(1) and bits.take(4) >= _MOST_DELAY:
        raise CorruptChunkError(_FIELD, f"a display delay of more than {_MOST_DELAY} frames")
    sizes = bits.take(4) + 1, bits.take(4) + 1
    width, height = (bits.take(n) + 1 for n in sizes)
    bits.zero(1, "a frame number")
    bits.take(3)  # superblocks, filter intra, intra edge filter
    bits.take(4)  # interintra, masked compound, warped motion, dual filter
    order_hint = bits.take(1)
    bits.take(2 * order_hint)
    screen = _SELECT if bits.take(1) else bits.take(1)
    integer_mv = _SELECT
    if screen and not bits.take(1):
        integer_mv = bits.take(1)
    bits.take(3 * order_hint)
    bits.zero(1, "super-resolution")
    bits.take(2)  # CDEF, restoration
    if not bits.take(1):
        raise CorruptChunkError(_FIELD, "samples of 8 bits")
    gray = bits.take(1)
    bits.zero(1, "a description of colours")
    bits.take(1 if gray else 4)  # range; position of chroma, separate deltas
    bits.zero(1, "film grain")
    return Sequence(width, height, screen, integer_mv)


def _shows(unit: Unit, sequence: Sequence, *, first: bool) -> bool:
    """Return whether a unit ends a temporal unit; refuse what is no frame of the sequence's size (section 5.9.2)."""
    if unit.kind not in (FRAME_HEADER, FRAME):
        raise CorruptChunkError(_FIELD, f"a unit of type {unit.kind}")
    bits = _Bits(unit.payload)
    if bits.take(1):  # show_existing_frame
        if unit.kind == FRAME:
            raise CorruptChunkError(_FIELD, "a frame that was there already")
        return True
    if unit.kind == FRAME_HEADER:
        raise CorruptChunkError(_FIELD, "a frame header without its frame")
    kind, shown = bits.take(2), bits.take(1)
    if kind == _SWITCH or first != (kind == _KEY):
        raise CorruptChunkError(_FIELD, "one key frame, the first, is wanted")
    if not shown:
        bits.take(1)  # showable_frame
    if not (kind == _KEY and shown):
        bits.take(1)  # error_resilient_mode
    bits.take(1)  # disable_cdf_update
    screen = bits.take(1) if sequence.force_screen_content_tools == _SELECT else sequence.force_screen_content_tools
    if screen and sequence.force_integer_mv == _SELECT:
        bits.take(1)
    bits.zero(1, "a frame of another size")
    return bool(shown)
