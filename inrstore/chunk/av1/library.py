"""AV1 by the libraries that PyAV brings: SVT-AV1 encodes, dav1d decodes. They are loaded when they are first needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.av1 import obu
from inrstore.errors import CorruptChunkError, MissingDependencyError

Frames = npt.NDArray[np.uint16]

DEPTH = 10
LEAST_SIDE = 64
"""Of a frame: SVT-AV1 4.1 does not come back from some that are smaller."""
MOST_HEIGHT, MOST_WIDTH = 8704, 16384
"""That SVT-AV1 takes."""
_ENCODER, _DECODER = "libsvtav1", "libdav1d"
_FORMAT = "yuv420p10le"  # what SVT-AV1 takes
_GRAY = 1 << (DEPTH - 1)
_PARAMETERS = "tune=1:enable-variance-boost=0:film-grain=0:enable-tf=0:keyint=-1"
"""Aimed at the squared error of every frame; one closed sequence."""


def is_installed() -> bool:
    """Return whether PyAV is there, with both libraries."""
    if find_spec("av") is None:
        return False
    try:
        known = library().codecs_available
    except MissingDependencyError:
        return False
    return _ENCODER in known and _DECODER in known


def library() -> Any:
    """Import PyAV.

    Raises
    ------
    MissingDependencyError
        Naming what to install.
    """
    os.environ.setdefault("SVT_LOG", "1")  # it would tell each encode's settings
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f"a chunk is coded in AV1, which needs PyAV: pip install av ({error})") from error
    return av


def _context(name: str, direction: str) -> Any:
    """Return a codec of PyAV, or raise `MissingDependencyError`: it may have been built without."""
    av = library()
    try:
        return av.CodecContext.create(name, direction)
    except ValueError as error:
        raise MissingDependencyError(
            f"a chunk is coded in AV1, which needs PyAV with {name}: pip install av ({error})"
        ) from error


@contextmanager
def _own_priority() -> Iterator[None]:
    """Give the thread its own scheduling back: as root, SVT-AV1 4.1 makes the caller a real-time one when it starts."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def decode(units: Sequence[bytes], width: int, height: int) -> Iterator[Frames]:
    """Yield the luma of each frame: as many frames as units.

    Parameters
    ----------
    units : sequence of bytes
        Temporal units that `inrstore.chunk.av1.obu` has checked.
    width, height : int

    Yields
    ------
    ndarray of uint16, shape (height, width)

    Raises
    ------
    CorruptChunkError
        If dav1d refuses them, or gives something else.
    MissingDependencyError
    """
    av = library()
    done = 0
    codec = _context(_DECODER, "r")
    codec.thread_count = 1  # chunks are decoded side by side
    codec.options = {"filmgrain": "0"}
    try:
        for packet in [*(av.Packet(unit) for unit in units), None]:
            for frame in codec.decode(packet):
                if done == len(units) or (frame.width, frame.height) != (width, height):
                    raise CorruptChunkError("av1.stream", "other frames than its headers say")
                if frame.format.name not in (_FORMAT, "gray10le"):
                    raise CorruptChunkError("av1.stream", f"samples of the format {frame.format.name}")
                plane = frame.planes[0]
                yield np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)[:height, :width]
                done += 1
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):  # which says nothing of the chunk
            raise
        raise CorruptChunkError("av1.stream", f"dav1d: {error}") from None
    if done != len(units):
        raise CorruptChunkError("av1.stream", f"{done} frames could be decoded, {len(units)} are wanted")


def encode(frames: Frames, quantiser: int, preset: int, threads: int, *, filters: bool = True) -> bytes:
    """Return the stream of frames, without temporal delimiters.

    Parameters
    ----------
    frames : ndarray of uint16, shape (frames, height, width)
        Below 1024; sides of at least `LEAST_SIDE`, at most `MOST_HEIGHT` and `MOST_WIDTH`.
    quantiser : int
        1..63, SVT-AV1's `crf`.
    preset : int
        0..13, the slowest first.
    threads : int
        They change no bytes.
    filters : bool
        Whether AV1's own filters for what quantisation leaves, beside that of edges of blocks, may be used.
    """
    av = library()
    count, height, width = frames.shape
    codec = _context(_ENCODER, "w")
    codec.width, codec.height, codec.pix_fmt = width, height, _FORMAT
    codec.time_base, codec.framerate = Fraction(1, 25), Fraction(25)
    parameters = _PARAMETERS if filters else f"{_PARAMETERS}:enable-cdef=0:enable-restoration=0"
    codec.options = {"preset": str(preset), "crf": str(quantiser), "svtav1-params": f"{parameters}:lp={threads}"}
    with _own_priority():
        codec.open()
    packets = []
    for number in range(count):
        frame = av.VideoFrame(width, height, _FORMAT)
        for plane, luma in zip(frame.planes, (True, False, False), strict=True):
            rows = np.full((plane.height, plane.line_size // 2), _GRAY, "<u2")
            if luma:
                rows[:, :width] = frames[number]
            plane.update(rows)
        frame.pts = number
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return b"".join(
        bytes(unit.whole)
        for packet in packets
        for unit in obu.units(bytes(packet))
        if unit.kind != obu.TEMPORAL_DELIMITER
    )
