"""Concurrent encodes become batches: whoever comes while networks are being fitted waits and is taken along.

Zarr calls a codec from many threads, one chunk at a time; fits that run beside each other would fight for the
same cores, and a GPU wants many chunks at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import NOTHING, Shared
from inrstore.errors import InrstoreError
from inrstore.options import EncodeOptions


class _Request:
    def __init__(
        self, chunks: Sequence[npt.NDArray[Any]], target: Target, options: EncodeOptions, shared: Shared
    ) -> None:
        self.chunks, self.target, self.alike = list(chunks), target, (options, shared)
        self.frames: list[bytes] | None = None
        self.error: BaseException | None = None


_fitting = threading.Lock()
_waiting: list[_Request] = []
_waiting_guard = threading.Lock()


def encode_batch(chunks: Sequence[npt.NDArray[Any]], target: Target, options: EncodeOptions,
                 shared: Shared = NOTHING) -> list[bytes]:  # fmt: skip
    """Encode chunks, together with those of other threads that ask for the same options meanwhile."""
    if target.rmse is None or not options.networks:  # nothing is fitted: let threads run side by side
        return encode_chunks(chunks, target, options, shared=shared)
    request = _Request([np.asarray(c) for c in chunks], target, options, shared)
    with _waiting_guard:
        _waiting.append(request)
    with _fitting:
        if request.frames is None and request.error is None:
            with _waiting_guard:
                batch = [r for r in _waiting if r.alike == request.alike]
                _waiting[:] = [r for r in _waiting if r.alike != request.alike]
            _run(batch, options, shared)
    if request.error is not None:
        raise request.error
    assert request.frames is not None
    return request.frames


def _run(batch: list[_Request], options: EncodeOptions, shared: Shared) -> None:
    try:
        chunks = [c for r in batch for c in r.chunks]
        frames = encode_chunks(chunks, [r.target for r in batch for _ in r.chunks], options, shared=shared)
        for request in batch:
            request.frames, frames = frames[: len(request.chunks)], frames[len(request.chunks) :]
    except Exception as error:
        if len(batch) == 1:
            batch[0].error = error
            return
        for request in batch:  # one bad chunk must not fail its neighbours
            _run([request], options, shared)
    except BaseException:  # an interrupt: the threads that wait must not go on without a result
        for request in batch:
            request.error = InrstoreError("encoding was interrupted")
        raise
