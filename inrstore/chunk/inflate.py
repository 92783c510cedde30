"""zlib streams from strangers -> bytes, no more of them than are wanted (specification section 1)."""

from __future__ import annotations

import zlib

from inrstore.errors import CorruptChunkError


def inflate(packed: bytes | memoryview, size: int, field: str) -> bytes:
    """Undo zlib; the result must have exactly `size` bytes, and no more is ever allocated."""
    engine = zlib.decompressobj()
    try:
        # zlib takes a limit of 0 for none, so one byte more than wanted is asked for.
        raw = engine.decompress(packed, size + 1)
    except zlib.error as error:
        raise CorruptChunkError(field, f"not a zlib stream: {error}") from None
    if len(raw) != size or not engine.eof or engine.unused_data or engine.unconsumed_tail:
        raise CorruptChunkError(field, f"does not inflate to {size} bytes")
    return raw
