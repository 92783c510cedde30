"""One chunk to encode: what the bids of all modes are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, envelope, quality
from inrstore.chunk.boxes import Box
from inrstore.chunk.context import UNKNOWN, Context
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.mask import Mask
from inrstore.chunk.quality import Target
from inrstore.options import EncodeOptions


@dataclass(frozen=True)
class Task:
    """One chunk, and what its frame has to keep.

    Parameters
    ----------
    chunk : ndarray
        Any byte order and memory layout; 0 outside the mask.
    mask : ndarray of bool or None
        As `inrstore.chunk.mask.narrow` gives it, with something outside.
    target : Target
    options : EncodeOptions
    context : Context
    """

    chunk: npt.NDArray[Any]
    mask: Mask | None
    target: Target
    options: EncodeOptions = field(default_factory=EncodeOptions)
    context: Context = UNKNOWN

    @cached_property
    def values(self) -> npt.NDArray[Any]:
        """The chunk, little-endian, in C order; not to be written to."""
        return np.ascontiguousarray(self.chunk, dtypes.little(self.chunk.dtype)).reshape(self.chunk.shape)

    @cached_property
    def cropped(self) -> tuple[npt.NDArray[Any], Envelope]:
        """What lossless modes code, and the envelope; for at least two different values.

        That is the box, bit for bit, or the numbers from which its floating-point values follow.
        """
        from inrstore.chunk.numbers_encode import numbered

        return numbered(*envelope.crop(self.values, self.mask))

    @cached_property
    def split(self) -> tuple[npt.NDArray[Any], Envelope]:
        """The box without non-finite values, and the envelope; for at least two different values."""
        return envelope.split(self.values, self.mask)

    @property
    def box(self) -> Box:
        """What a lossy mode codes; for at least two different values and a target rmse."""
        core, around = self.split
        inside = core.size if around.mask is None else int(np.broadcast_to(around.mask, core.shape).sum())

        def error(decoded: npt.NDArray[Any]) -> float:
            rebuilt = envelope.join(np.array(decoded), around, self.chunk.shape)
            return quality.rmse(self.values, rebuilt, self.target, around.box, around.mask)

        return Box(core, error, around.mask, inside - (0 if around.values is None else around.values.size))

    @property
    def channel_axis(self) -> int | None:
        """The axis of measurements."""
        return self.target.resolve_channel_axis(self.chunk.ndim)

    @property
    def scales(self) -> npt.NDArray[np.float64]:
        """What errors inside the box are divided by: one number, or one for each measurement."""
        scale, axis, shape = self.target.channel_scale(self.chunk.shape), self.channel_axis, self.chunk.shape
        if scale.size == 1 or axis is None:
            return np.asarray(scale, np.float64).reshape(-1)[:1]
        inside = np.broadcast_to(scale, shape)[self.split[1].box]
        first: npt.NDArray[np.float64] = np.moveaxis(inside, axis, 0).reshape(inside.shape[axis], -1)[:, 0]
        return first

    def sealed(self, coded: bytes, *, split: bool = False) -> bytes:
        """Return the payload of a coded box: its envelope in front of it."""
        return envelope.write((self.split if split else self.cropped)[1], self.chunk.shape) + coded
