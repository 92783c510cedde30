"""Which part of each subband reaches some positions of a volume (specification section 14.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inrstore.chunk.transform.subbands import Triple, low_shape

REACH = 2
"""Places of a low or high pass beside the half of a position that the four liftings read."""
Span = tuple[int, int]
Spans = tuple[Span, Span, Span]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Window:
    """A box of positions, and what each level must give for it.

    What is made of parts of subbands is wrong at ends that are none of the volume, within `REACH` of them: these are
    made, too, and cut off.

    Parameters
    ----------
    levels : tuple of int
        How often slices, rows and columns are halved.
    lengths : tuple of Triple
        Of the low pass in front of each level, from the finest; the last is the coarsest low pass.
    spans : tuple of Spans
        First place and end of the part of each that is needed, along each axis.
    """

    levels: Triple
    lengths: tuple[Triple, ...]
    spans: tuple[Spans, ...]

    @classmethod
    def of(cls, lengths: Triple, levels: Triple, box: Sequence[Span] | None = None) -> Window:
        """Return the window of a box, first place and end along each axis, or of the whole volume."""
        whole = tuple(low_shape(lengths, levels, level) for level in range(max(levels) + 1))
        z, y, x = [(0, n) for n in lengths] if box is None else box
        spans: list[Spans] = [(z, y, x)]
        for level in range(max(levels)):
            z, y, x = (
                (max(0, a // 2 - REACH), min(n, (b + 1) // 2 + REACH)) if level < count else (a, b)
                for (a, b), n, count in zip(spans[-1], whole[level + 1], levels, strict=True)
            )
            spans.append((z, y, x))
        return cls(levels, whole, tuple(spans))

    @property
    def shape(self) -> Triple:
        """Lengths of the box."""
        z, y, x = (b - a for a, b in self.spans[0])
        return z, y, x

    def part(self, level: int, key: Triple) -> Slices:
        """Return the part of a subband that is needed."""
        z, y, x = (
            slice(*self.spans[level][axis]) if level >= count
            else slice(self.spans[level + 1][axis][0],
                       min(self.spans[level + 1][axis][1], self.lengths[level][axis] // 2 if high else 1 << 62))
            for axis, (count, high) in enumerate(zip(self.levels, key, strict=True))
        )  # fmt: skip
        return z, y, x

    def made(self, level: int) -> Triple:
        """Return the lengths of what the inverse of a level makes of its parts."""
        z, y, x = (end - begin for begin, end in (self._made(level, axis) for axis in range(3)))
        return z, y, x

    def kept(self, level: int) -> Slices:
        """Return the part of that which is needed."""
        z, y, x = (
            slice(a - self._made(level, axis)[0], b - self._made(level, axis)[0])
            for axis, (a, b) in enumerate(self.spans[level])
        )
        return z, y, x

    def _made(self, level: int, axis: int) -> Span:
        if level >= self.levels[axis]:
            return self.spans[level][axis]
        begin, end = self.spans[level + 1][axis]
        return 2 * begin, min(2 * end, self.lengths[level][axis])
