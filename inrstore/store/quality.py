"""What quality the user asks for -> targets of the chunks, and whether the image keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.envelope import coded_values
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError
from inrstore.evaluate.metrics import Measures, Ranges
from inrstore.evaluate.noise import Noise
from inrstore.sources import Source
from inrstore.store.layout import Grid, measurement_axes
from inrstore.store.measures import Preserve

LEAST_NOISE, MOST_NOISE = 0.001, 1000.0
NETWORK_PSNR = 40.0
"""dB, where networks or a lossy codec are asked for, and no quality."""

_ROUNDING = 1e-9
"""Relative slack for sums that are added in another order."""
_SAME_NOISE = 1e-6
"""Relative slack for noise that is estimated on another machine."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of a whole image. Exactly one of the first eight is set; if none is named, it is `default`.

    Parameters
    ----------
    psnr : float, optional
        At least this many dB, each measurement relative to its own range.
    rmse, max_error : float, optional
        At most this much, in stored units.
    noise : float, optional
        In every measurement an rmse of at most so many times the standard deviation of its noise, over the voxels that
        `inrstore.evaluate.noise.Noise` counts.
    preserve : Preserve, optional
        A measure of an analysis stays within a bound; the quality is looked for, see `inrstore.store.preserve`.
    lossless : bool
        Every bit is kept.
    found : bool
        Whatever a network of a given size reaches; what is promised is the error that was measured.
    default : bool
        What suits the image, which is not known before it is read; see `inrstore.store.defaults`.
    unasked : bool
        Nobody named it.
    """

    psnr: float | None = None
    rmse: float | None = None
    max_error: float | None = None
    noise: float | None = None
    preserve: Preserve | None = None
    lossless: bool = False
    found: bool = False
    default: bool = False
    unasked: bool = field(default=False, compare=False)

    @classmethod
    def of(
        cls, psnr: float | None, rmse: float | None, max_error: float | None, lossless: bool,
        noise: float | None = None, preserve: Any = None,
    ) -> Quality:  # fmt: skip
        """Check what a user asks for."""
        given = {"psnr": psnr, "rmse": rmse, "max_error": max_error, "noise": noise, "preserve": preserve}
        named = [name for name, value in given.items() if value is not None] + ["lossless"] * bool(lossless)
        if len(named) > 1:
            raise ConfigurationError(f"give only one of {' and '.join(named)}")
        if not named:
            return UNASKED
        if psnr is not None:
            number = isinstance(psnr, int | float | np.number) and not isinstance(psnr, bool)
            if not number or not 0 < psnr <= 200:
                raise ConfigurationError(f"psnr must be a number of dB between 0 and 200, not {psnr!r}")
            return cls(psnr=float(psnr))
        if noise is not None:
            number = isinstance(noise, int | float | np.number) and not isinstance(noise, bool)
            if not number or not LEAST_NOISE <= noise <= MOST_NOISE:
                raise ConfigurationError(f"noise must be a number of standard deviations between {LEAST_NOISE:g} and "
                                         f"{MOST_NOISE:g}, not {noise!r}")  # fmt: skip
            return cls(noise=float(noise))
        if preserve is not None:
            return cls(preserve=Preserve.of(preserve))
        target = Target(rmse=rmse, max_error=max_error, lossless=bool(lossless))
        return cls(rmse=target.rmse, max_error=target.max_error, lossless=target.lossless)

    @classmethod
    def from_dict(cls, asked: Mapping[str, Any]) -> Quality:
        """Take what `to_dict` gave."""
        if asked.get("found"):
            return AS_FOUND
        if asked.get("default"):
            return UNASKED
        values = {name: asked.get(name) for name in ("psnr", "rmse", "max_error", "noise", "preserve")}
        return cls.of(**values, lossless=bool(asked.get("lossless", False)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the one thing that is asked."""
        names = ("psnr", "rmse", "max_error", "noise", "lossless", "found", "default")
        searched = {} if self.preserve is None else {"preserve": self.preserve.to_dict()}
        return {name: getattr(self, name) for name in names if getattr(self, name)} | searched

    def made(self, said: Mapping[str, Any]) -> bool:
        """Return whether a store was made with this quality, by what it says of its own."""
        if self.default:
            return bool(said.get("default"))
        if self.preserve is None:
            return bool(said.get("asked") == self.to_dict())
        found = said.get("preserve")
        return isinstance(found, dict) and {found.get("measure"): found.get("bound")} == self.preserve.to_dict()

    def _target(self, ranges: Ranges, leading: int, chunks: Sequence[int]) -> Target:
        """Return what all chunks have in common; with psnr or noise the error relative to the scales, still missing.

        The channel axis is the longest axis of measurements in a chunk; of an image with one such axis, or none, it
        is not named.

        Raises
        ------
        ConfigurationError
            If a PSNR is asked of an image whose range is no float64.
        """
        axis = max(range(leading), key=lambda a: (chunks[a], a)) if leading > 1 else None
        if self.lossless:
            return Target(lossless=True)
        if self.noise is not None:
            return Target(rmse=self.noise, channel_axis=axis)
        psnr = 0.0 if self.found else self.psnr  # an error as large as the range: networks are nearer
        if psnr is None:
            return Target(rmse=self.rmse, max_error=self.max_error, channel_axis=axis)
        if not math.isfinite(ranges.whole):
            raise ConfigurationError(
                f"psnr {psnr:g}: the values differ by more than float64 can hold, no range for a PSNR; "
                "such an image can be kept lossless"
            )
        relative = 10 ** (-psnr / 20)
        return Target(rmse=relative if leading else relative * ranges.whole, channel_axis=axis)

    @staticmethod
    def bound(targets: Sequence[Target], worst: float) -> Target:
        """Return a target that every chunk keeps, for all measurements together, without a scale for each.

        It stands in the metadata, where a hundred scales would cost more than all the rest.

        Parameters
        ----------
        targets : sequence of Target
            Of the chunks.
        worst : float
            The largest error of a chunk over its target, at least 1.
        """
        largest = max((t.rmse * max(t.scale or (1.0,)) for t in targets if t.rmse is not None), default=None)
        return targets[0] if largest is None else replace(targets[0], rmse=largest * worst, scale=None)

    def chunk_targets(
        self,
        grid: Grid,
        ranges: Ranges,
        dims: tuple[str, ...],
        cut: Callable[[tuple[int, ...]], tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]],
        sigma: npt.NDArray[np.float64] | None = None,
    ) -> list[Target]:
        """Return a target for each chunk of an image, in the order of the grid.

        The codec counts the values inside the constant border of a chunk only; the promise is over the whole
        image. So the error that the image may have is shared among the counted values, the same for each
        (reverse water-filling: nothing is gained by giving some of them more).

        Parameters
        ----------
        grid : Grid
        ranges : Ranges
            Of the original image.
        dims : tuple of str
            Its axes.
        cut : callable
            Returns the chunk at an index of the grid, and its mask or None.
        sigma : ndarray, optional
            What the error of each measurement is counted in, if that is its noise.
        """
        leading = measurement_axes(dims)
        base = self._target(ranges, leading, grid.chunks)
        if base.rmse is None:
            return [base] * len(grid)
        if sigma is not None:  # every measurement has its own bound, which says nothing of constant borders
            return self._scaled_targets(base, grid, leading, sigma)
        coded = finite = 0
        for index in grid:
            chunk, inside = cut(index)
            coded += coded_values(chunk, inside)
            # Non-finite values are kept exactly and count in neither number; chunks may be padded beyond the image.
            counts = np.isfinite(chunk)
            if inside is not None:
                counts &= inside
            finite += int(np.count_nonzero(counts[tuple(slice(s.stop - s.start) for s in grid.region(index))]))
        share = math.sqrt(max(1.0, finite / coded)) if coded else 1.0
        base = replace(base, rmse=base.rmse * share)
        if (self.psnr is None and not self.found) or not leading:
            return [base] * len(grid)
        return self._scaled_targets(base, grid, leading, ranges.each)

    @staticmethod
    def _scaled_targets(base: Target, grid: Grid, leading: int, each: npt.NDArray[np.float64]) -> list[Target]:
        """Return the targets of chunks whose measurements each have a scale, in the shape of the leading axes."""
        if not leading:
            assert base.rmse is not None
            return [replace(base, rmse=base.rmse * float(each))] * len(grid)
        axis = base.channel_axis or 0
        others = tuple(a for a in range(leading) if a != axis)
        targets: dict[tuple[int, ...], Target] = {}
        for index in grid:
            if index[:leading] not in targets:
                # One scale serves measurements that differ along another axis: the smallest, which suffices for all.
                own = each[grid.region(index)[:leading]].min(axis=others)
                scale = np.ones(grid.chunks[axis])
                scale[: own.size] = own
                targets[index[:leading]] = _scaled(base, scale)
        return [targets[index[:leading]] for index in grid]

    def broken_by(self, measures: Measures, ratios: npt.NDArray[np.float64] | None = None) -> str | None:
        """Return how measured errors break the promise, or None if they keep it.

        Parameters
        ----------
        measures : Measures
        ratios : ndarray, optional
            The error of each measurement over its noise, where noise is asked.
        """
        if self.found:
            return None
        if self.noise is not None:
            assert ratios is not None
            if not ratios.size or ratios.max() <= self.noise * (1 + _SAME_NOISE):
                return None
            worst = int(ratios.argmax())
            return (f"the error of measurement {worst} is {ratios.reshape(-1)[worst]:.4g} times its noise, above the "
                    f"{self.noise:g} promised")  # fmt: skip
        if self.lossless:
            return None if measures.lossless else "not every bit is the same"
        if self.psnr is not None:
            if measures.psnr is None or measures.psnr >= self.psnr - _ROUNDING:
                return None
            return f"PSNR {measures.psnr:.4f} dB is below the {self.psnr:g} dB promised"
        name = "rmse" if self.rmse is not None else "max_error"
        limit, found = getattr(self, name), getattr(measures, name)
        if found <= limit * (1 + _ROUNDING):
            return None
        return f"{name} {found:g} is above the {limit:g} promised"

    def kept_by(self, measures: Measures) -> Quality:
        """Return what a store promises: what was asked, or what was reached if that is asked, a little rounded."""
        if not self.found:
            return self
        if measures.psnr is None or not math.isfinite(measures.psnr):
            return Quality(rmse=measures.rmse * (1 + _ROUNDING)) if measures.rmse else Quality(lossless=True)
        return Quality(psnr=math.floor(measures.psnr * 1000) / 1000)

    def psnr_at_target(self, ranges: Ranges) -> float | None:
        """Return the PSNR of an image that is exactly on target, for showing how a fit goes."""
        if self.psnr is not None or self.found:
            return self.psnr or 0.0
        if self.rmse is not None:
            return 20 * math.log10(ranges.whole / self.rmse)
        return None  # of a largest error, or of noise


UNASKED = Quality(default=True, unasked=True)
UNASKED_LOSSY = Quality(psnr=NETWORK_PSNR, unasked=True)
AS_FOUND = Quality(found=True, unasked=True)


def noise_of(source: Source, leading: int, inside: npt.NDArray[np.bool_] | None = None) -> Noise:
    """Return the noise of an image, whose first `leading` axes count measurements.

    Raises
    ------
    ConfigurationError
        Naming the image, if it has none that can be measured.
    """
    if source.labels or not source.spatial:
        what = "its values are labels" if source.labels else "it is a matrix, not an image of places"
        raise ConfigurationError(f"{source.label}: noise: {what}")
    try:
        return Noise.of(source.voxels, leading, inside)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source.label}: {error}") from error


def _scaled(base: Target, scale: npt.NDArray[np.float64]) -> Target:
    """Return a target with a scale for each measurement; with the smallest alone where there are too many for that."""
    if base.rmse is not None and scale.size > limits.MAX_CONFIGURATION_SCALES:
        return replace(base, rmse=base.rmse * float(scale.min()))
    return replace(base, scale=tuple(scale.tolist()))
