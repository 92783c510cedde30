"""What quality is asked for, and how far a decoded chunk is from it (specification section 10).

`Target` is one frozen value that travels from the user to the fitter and the checker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import ConfigurationError

_KEYS = ("rmse", "max_error", "lossless", "scale", "channel_axis")


@dataclass(frozen=True, kw_only=True)
class Target:
    """The promised quality of a chunk, in stored units. Exactly one of the first three is set.

    Parameters
    ----------
    rmse : float, optional
        Upper bound of the root mean square error over the finite values of the chunk. With `scale`, each
        error is divided by the scale of its measurement first.
    max_error : float, optional
        Upper bound of the absolute error of every finite value.
    lossless : bool
        Every bit is kept.
    scale : tuple of float, optional
        One positive number for each index of the channel axis; only with `rmse`.
    channel_axis : int, optional
        The axis that holds measurements rather than space: one network gives all of them at once.
        None takes the first axis of 4-D chunks and no axis otherwise.

    Raises
    ------
    ConfigurationError
        Naming the option that is unknown, missing or out of range.
    """

    rmse: float | None = None
    max_error: float | None = None
    lossless: bool = False
    scale: tuple[float, ...] | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        given = [self.rmse is not None, self.max_error is not None, bool(self.lossless)]
        if sum(given) != 1:
            raise ConfigurationError("give exactly one of rmse, max_error and lossless=true")
        if not isinstance(self.lossless, bool):
            raise ConfigurationError(f"lossless must be true or false, not {self.lossless!r}")
        for name in ("rmse", "max_error"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _positive(name, value))
        if self.scale is not None:
            if self.rmse is None:
                raise ConfigurationError("scale goes with rmse only")
            if isinstance(self.scale, str) or not isinstance(self.scale, Sequence | np.ndarray):
                raise ConfigurationError("scale must be a list of positive numbers")
            if not 0 < len(self.scale) <= limits.MAX_CONFIGURATION_SCALES:
                raise ConfigurationError(f"scale has {len(self.scale)} entries")
            object.__setattr__(self, "scale", tuple(_positive("scale", s) for s in self.scale))
        if self.channel_axis is not None:
            axis = self.channel_axis
            if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < limits.MAX_DIMS:
                raise ConfigurationError(f"channel_axis must be an axis number, not {axis!r}")

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Target:
        """Build from a JSON object; unknown keys are refused by name."""
        for key in options:
            if key not in _KEYS:
                raise ConfigurationError(f"unknown option {key!r}; known are {', '.join(_KEYS)}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `from_dict` takes; defaults are left out."""
        out: dict[str, Any] = {}
        for key in _KEYS:
            value = getattr(self, key)
            if value is not None and value is not False:
                out[key] = list(value) if isinstance(value, tuple) else value
        return out

    def resolve_channel_axis(self, ndim: int) -> int | None:
        """Return the axis of measurements for a chunk of `ndim` axes, or None."""
        if self.channel_axis is not None:
            if self.channel_axis >= ndim:
                raise ConfigurationError(f"channel_axis {self.channel_axis} of a {ndim}-D chunk")
            return self.channel_axis
        return 0 if ndim == 4 else None

    def channel_scale(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return the scale as an array that broadcasts against a chunk of `shape`."""
        if self.scale is None:
            return np.ones((1,) * len(shape))
        axis = self.resolve_channel_axis(len(shape))
        if axis is None:
            if len(self.scale) != 1:
                raise ConfigurationError("scale has many entries, but the chunk has no channel axis")
            return np.full((1,) * len(shape), self.scale[0])
        if len(self.scale) != shape[axis]:
            raise ConfigurationError(f"scale has {len(self.scale)} entries for {shape[axis]} measurements")
        view = [1] * len(shape)
        view[axis] = shape[axis]
        return np.asarray(self.scale).reshape(view)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigurationError(f"{name} must be a number, not {value!r}")
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ConfigurationError(f"{name} must be a positive finite number, not {value!r}")
    return number


_SMALL_SUM = 1 << 13


def rmse(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    target: Target,
    box: tuple[slice, ...] | None = None,
    inside: npt.NDArray[np.bool_] | None = None,
) -> float:
    """Return the root mean square error over the finite values, each error divided by its scale.

    Parameters
    ----------
    original, decoded : ndarray
        Same shape and dtype, stored units.
    target : Target
        Gives the scale.
    box : tuple of slice, optional
        Where to look; constant borders outside would only dilute the error.
    inside : ndarray of bool, optional
        Which values of the box count; broadcasts to its shape.
    """
    scale = np.broadcast_to(target.channel_scale(original.shape), original.shape)
    if box is not None:
        original, decoded, scale = original[box], decoded[box], scale[box]
    where = np.broadcast_to(True if inside is None else inside, original.shape)
    total, count = 0.0, 0
    every = inside is None and original.dtype.kind != "f"
    for i in _slabs(original):
        if every:
            error = np.subtract(decoded[i], original[i], dtype=np.float64)
            if target.scale is not None:
                error /= scale[i]
            total += sum_of_squares(error)
            count += error.size
            continue
        finite = np.isfinite(original[i]) & where[i] if original.dtype.kind == "f" else where[i]
        error = decoded[i][finite].astype(np.float64) - original[i][finite].astype(np.float64)
        error = error / scale[i][finite]
        total += sum_of_squares(error)
        count += error.size
    return math.sqrt(total / count) if count else 0.0


def _slabs(values: npt.NDArray[Any]) -> Iterator[slice | EllipsisType]:
    """Yield parts along the first axis: one position each, or several that are small."""
    if not values.ndim:
        yield ...
        return
    step = max(1, _SMALL_SUM // max(1, math.prod(values.shape[1:])))
    for first in range(0, len(values), step):
        yield slice(first, first + step)


def sum_of_squares(values: npt.NDArray[Any]) -> float:
    """Return the sum of squares of floats, the same whatever the number of threads that BLAS may use."""
    flat = values.reshape(-1)
    pieces = (flat[i : i + _SMALL_SUM] for i in range(0, flat.size, _SMALL_SUM))
    return math.fsum(float(np.vdot(piece, piece)) for piece in pieces)


def max_error(original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
    """Return the largest absolute error over the finite values; exact for integers of every width."""
    if original.dtype.kind == "f":
        finite = np.isfinite(original)
        gap = np.abs(original[finite].astype(np.float64) - decoded[finite].astype(np.float64))
    else:
        high, low = np.maximum(original, decoded), np.minimum(original, decoded)
        gap = high.astype(np.uint64) - low.astype(np.uint64)
    return float(gap.max(initial=0))


def odd_kept(original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> bool:
    """Return whether all values that are not finite are equal bit for bit."""
    if original.dtype.kind != "f":
        return True
    odd = ~np.isfinite(original)
    return bool(original[odd].tobytes() == decoded[odd].tobytes())


def meets(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    target: Target,
    box: tuple[slice, ...] | None = None,
    inside: npt.NDArray[np.bool_] | None = None,
) -> bool:
    """Return whether a decoded chunk keeps its promise; non-finite values must be equal bit for bit.

    `box` and `inside` are those of `rmse`; outside them both arrays hold the same.
    """
    if target.lossless:
        return bool(original.tobytes() == decoded.tobytes())
    if not odd_kept(original, decoded):
        return False
    if target.max_error is not None:
        return max_error(original, decoded) <= target.max_error
    if target.rmse is not None:
        return rmse(original, decoded, target, box, inside) <= target.rmse
    return True
