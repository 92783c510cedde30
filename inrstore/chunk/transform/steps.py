"""The search for the coarsest step whose error keeps a target."""

from __future__ import annotations

import math

_TINY = 1e-6  # an error of 0 says little of the next step
_FARTHEST = 2.0
_APART = 1.015  # steps whose errors say something of the slope
_EDGE = 0.03  # how far inside two steps the next one stays, in their distance
_BEYOND = 1.0005


class Steps:
    """What is known of errors at some steps, both on a logarithmic scale, where one is nearly a line of the other."""

    def __init__(self) -> None:
        self._tried: list[tuple[float, float]] = []
        self._kept: tuple[float, float] | None = None
        self._missed: tuple[float, float] | None = None
        self._keeps, self._in_a_row = False, 0  # whether the last one keeps the target, as did so many before it

    def add(self, step: float, error: float) -> None:
        """Keep an error in targets.

        Errors have a noise of their own: of what they say on both sides of a step that keeps the target, only the
        coarser side matters.
        """
        self._in_a_row = self._in_a_row + 1 if self._in_a_row and (error <= 1) == self._keeps else 1
        self._keeps = error <= 1
        if error <= 1:
            if self._kept is None or step > self._kept[0]:
                self._kept = step, error
            if self._missed is not None and step >= self._missed[0]:
                self._missed = None
        elif (self._kept is None or step > self._kept[0]) and (self._missed is None or step < self._missed[0]):
            self._missed = step, error

    def watch(self, step: float, error: float) -> None:
        """Keep an error in any unit, which says how errors follow the step."""
        self._tried.append((step, error))

    @property
    def narrow(self) -> bool:
        """Whether there is nothing left between a step that keeps the target and one that misses it."""
        return self._kept is not None and self._missed is not None and self._missed[0] < self._kept[0] * _BEYOND

    def following(self, step: float, error: float, slope: float, aim: float) -> float:
        """Return the step to try after another.

        Parameters
        ----------
        step, error : float
            The last one, and its error in targets.
        slope : float
            Expected one of the logarithm of errors.
        aim : float
            Error that is looked for.
        """
        out: float = step * min(max((aim / max(error, _TINY)) ** (1 / self._slope(slope)), 1 / _FARTHEST), _FARTHEST)
        if self._kept is None:
            return out if self._missed is None else min(out, self._missed[0] / _BEYOND)
        (a, p) = self._kept
        if self._missed is None:
            return max(out, a * _BEYOND)
        (b, q) = self._missed
        if step in (a, b) or not a < out < b:
            under, over = math.log(aim / max(p, _TINY)), math.log(q / aim)
            # Where errors jump or bend, the same end would stay for long (the Illinois method).
            less = 0.5 ** (self._in_a_row - 1)
            under, over = (under, over * less) if self._keeps else (under * less, over)
            out = a * (b / a) ** min(max(under / (under + over), _EDGE), 1 - _EDGE)
        return out

    def _slope(self, expected: float) -> float:
        """Return the slope between the last two steps; what is far from the expected one is noise."""
        if len(self._tried) > 1:
            (a, p), (b, q) = self._tried[-2:]
            if max(a / b, b / a) > _APART:
                found = math.log(max(q, _TINY) / max(p, _TINY)) / math.log(b / a)
                return min(max(found, expected / 2), expected * 2)
        return expected
