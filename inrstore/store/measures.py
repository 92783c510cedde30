"""What a quality can preserve: measures of an analysis, and how far they usually get at a multiple of the noise.

Bounds are set beside what is measured in docs/quality.md: FA of two halves of a scan's directions differs by 0.04 to
0.13 in white matter, MD by 0.02 to 0.14 µm²/ms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from inrstore.errors import ConfigurationError

Curve: TypeAlias = Sequence[tuple[float, float]]
"""(multiple of the noise, loss), both rising."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of `inrstore evaluate` that is to stay within a bound.

    Parameters
    ----------
    kind : str
        Of the images that have it, as `inrstore.store.evaluation.KINDS`.
    figure : tuple of str
        Measure, region and statistic of the findings; without a region the worst of all regions.
    best : float
        What the figure is when nothing is lost: 0 of an error, 1 of a likeness.
    bound : float
        The usual bound.
    most : float
        The loosest bound that makes sense.
    unit, what : str
        For people.
    curve : sequence of (float, float)
        See `Curve`; the loss is how far the figure is from `best`.
    """

    kind: str
    figure: tuple[str, str, str]
    best: float
    bound: float
    most: float
    unit: str
    what: str
    curve: Curve

    def loss(self, figure: float) -> float:
        """Return how far a figure, or a bound, is from the best; above 0 for a worse one."""
        return self.best - figure if self.best else figure


MEASURES: Mapping[str, Measure] = {
    "fa": Measure(
        kind="dmri", figure=("FA", "WM", "mean absolute error"), best=0.0, bound=0.02, most=1.0, unit="",
        what="mean absolute error of FA in white matter",
        curve=((0.35, 0.0104), (0.5, 0.0183), (0.7, 0.0357), (1.0, 0.0726), (1.4, 0.1436)),
    ),
    "md": Measure(
        kind="dmri", figure=("MD", "WM", "mean absolute error"), best=0.0, bound=0.015, most=3.0, unit="µm²/ms",
        what="mean absolute error of MD in white matter",
        curve=((0.35, 0.0096), (0.5, 0.0152), (0.7, 0.0249), (1.0, 0.0398), (1.4, 0.0589)),
    ),
    "bold": Measure(
        kind="fmri", figure=("correlation of the series, median", "brain", "value"), best=1.0, bound=0.9, most=0.0,
        unit="", what="median correlation of the detrended series in the brain",
        curve=((0.25, 0.032), (0.5, 0.134), (0.75, 0.339)),  # of a series that is noise, 1 - sqrt(1 - multiple²)
    ),
    "volume": Measure(
        kind="structural", figure=("Dice", "", "value"), best=1.0, bound=0.95, most=0.0, unit="",
        what="Dice of the tissue class that changes most", curve=((0.25, 0.012), (0.4, 0.02), (0.7, 0.04), (1.4, 0.1)),
    ),
    "hu": Measure(
        kind="ct", figure=("HU", "soft tissue", "mean absolute error"), best=0.0, bound=5.0, most=1000.0, unit="HU",
        what="mean absolute error in soft tissue", curve=((0.5, 2.5), (1.0, 5.0), (2.0, 10.0)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Preserve:
    """A measure and its bound.

    Parameters
    ----------
    measure : str
        One of `MEASURES`.
    bound : float
    """

    measure: str
    bound: float

    @classmethod
    def of(cls, asked: Any) -> Preserve:
        """Return what a user asks for: "fa", "fa=0.03", or {"fa": 0.03}.

        Raises
        ------
        ConfigurationError
        """
        if isinstance(asked, cls):
            return asked
        bound: Any = None
        if isinstance(asked, str):
            name, given, text = asked.partition("=")
            try:
                bound = float(text) if given else None
            except ValueError:
                raise ConfigurationError(f"preserve: the bound of {name} must be a number, not {text!r}") from None
        elif isinstance(asked, Mapping) and len(asked) == 1:
            ((name, bound),) = asked.items()
        else:
            raise ConfigurationError(f'preserve must be one measure, such as "fa" or {{"fa": 0.03}}, not {asked!r}')
        measure = MEASURES.get(name)
        if measure is None:
            raise ConfigurationError(f"preserve must be one of {', '.join(MEASURES)}, not {name!r}")
        if bound is None:
            bound = measure.bound
        least, most = sorted((measure.best, measure.most))
        known = isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound)
        if not known or not least < bound < most:
            raise ConfigurationError(f"preserve: the bound of {name} ({measure.what}) must be a number between "
                                     f"{least:g} and {most:g}, not {bound!r}")  # fmt: skip
        return cls(name, float(bound))

    def to_dict(self) -> dict[str, float]:
        """Return what `of` takes."""
        return {self.measure: self.bound}


def first_guess(curve: Curve, loss: float) -> float:
    """Return the multiple of the noise at which a loss is to be expected: a power law between two points, or beyond."""
    points = list(curve)
    place = min(max(1, sum(y < loss for _, y in points)), len(points) - 1)
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return math.exp(math.log(x0) + math.log(loss / y0) * math.log(x1 / x0) / math.log(y1 / y0))
