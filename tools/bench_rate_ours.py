"""The project's own codec on a whole volume as one chunk, through the real encoder and the readers' decoder."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.options import EncodeOptions
from inrstore.store import layout
from inrstore.store.layout import Grid
from inrstore.store.quality import Quality
from tools.bench_rate_data import Array, Volume

REPEATS = 3


def measure(volume: Volume, promise: Quality, options: EncodeOptions) -> dict[str, Any]:
    """Return bytes, quality, mode and times of a volume coded as one chunk.

    The target of the chunk is what the converter would give it: the channel axis is t, each measurement counts
    relative to its own range.
    """
    image, dims = volume.image, layout.image_dims(volume.image.ndim)
    grid = Grid(image.shape, image.shape)
    targets = promise.chunk_targets(grid, volume.ranges, dims, lambda _: (image, None))
    wall, begin = time.perf_counter(), time.process_time()
    (frame,) = encode_chunks([image], targets, options)
    encode_s, encode_cpu_s = time.perf_counter() - wall, time.process_time() - begin
    decode_s, decoded = _decode(frame)
    found = volume.measure(decoded)
    broken = promise.broken_by(found)
    over = None
    if promise.max_error is not None:
        over = int(np.count_nonzero(np.abs(decoded.astype(np.int64) - image) > promise.max_error))
    return {
        "bytes": len(frame),
        "psnr": found.psnr,
        "max_error": found.max_error,
        "mode": describe_chunk(frame).mode,
        "encode_s": round(encode_s, 3),
        "encode_cpu_s": round(encode_cpu_s, 3),
        "decode_s": round(decode_s, 4),
        **({} if over is None else {"over": over}),
        **({} if broken is None else {"broken": broken}),
    }


def _decode(frame: bytes) -> tuple[float, Array]:
    """Return processor seconds of the fastest of a few decodes, and the values."""
    best, decoded = 1e9, None
    for _ in range(REPEATS):
        begin = time.process_time()
        decoded = decode_chunk(frame)
        best = min(best, time.process_time() - begin)
        if best > 3:
            break
    assert decoded is not None
    return best, decoded
