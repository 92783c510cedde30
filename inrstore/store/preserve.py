"""A measure and its bound -> the coarsest quality that keeps it: convert, decode, measure like `evaluate`, and again.

The quality is looked for as a multiple of the noise, in which losses of different scans are alike, so that the first
guess is near; an image whose noise cannot be measured has a PSNR instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from inrstore.errors import ConfigurationError
from inrstore.evaluate.findings import Image, needs
from inrstore.sources import Source
from inrstore.sources.registry import stem
from inrstore.store.defaults import kind_of
from inrstore.store.evaluation import Model, Wanted, model_of
from inrstore.store.layout import image_dims, measurement_axes
from inrstore.store.measures import MEASURES, Curve, Measure, Preserve, first_guess
from inrstore.store.options import Options
from inrstore.store.quality import Quality, noise_of

TRIALS = 8
_COARSEST, _FINEST = 20.0, 0.02
"""Multiples of the noise; below, every bit is kept."""
_AIM = 0.96
"""Of the bound, what a trial is aimed at."""
_ENOUGH = 0.91
"""Of the bound: a loss that ends the search. Losses go about with the square of the error, so bytes are within 5 %."""
_NARROW = 1.05
"""Between a multiple that keeps the bound and one that does not."""
_SLOPE = 1.7
"""Of a loss over the multiple, both as logarithms, before two trials tell."""


class Trial(Protocol):
    """A conversion whose chunks are encoded."""

    @property
    def stored(self) -> int:
        """Bytes of its chunks."""

    def decoded(self) -> Image:
        """Return the image as readers decode it."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One trial.

    Parameters
    ----------
    quality : Quality
    figure : float
        Of the measure.
    kept : bool
        Whether it is within the bound.
    stored : int
        Bytes of the chunks.
    """

    quality: Quality
    figure: float
    kept: bool
    stored: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    Parameters
    ----------
    trial : Trial
        The conversion that is kept.
    figure : float
        Of the measure.
    attempts : tuple of Attempt
        All trials, in their order.
    """

    trial: Any
    figure: float
    attempts: tuple[Attempt, ...]


def require(name: str) -> None:
    """Raise `MissingDependencyError` unless a measure can be computed here."""
    from importlib.util import find_spec

    packages = {"dmri": ("dipy", "scipy"), "fmri": ("dipy",), "structural": ("dipy",)}.get(MEASURES[name].kind, ())
    for package in packages:
        if find_spec(package) is None:
            raise needs(package)


def prepare(source: Source, options: Options) -> tuple[Measure, Model]:
    """Return the measure that is asked, and what computes it.

    Raises
    ------
    ConfigurationError
        Naming the image, if it is not of a kind that has the measure.
    MissingDependencyError
    """
    asked = options.quality.preserve
    assert asked is not None
    require(asked.measure)
    measure = _measure(source, asked)
    try:
        model = model_of(measure.kind, source, Wanted(mask=options.mask))  # type: ignore[arg-type]
    except ConfigurationError as error:
        text = str(error).removeprefix(f"{source.label}: ")
        raise ConfigurationError(f"{source.label}: preserve {asked.measure}: {text}") from error
    figure_of(measure, model, source, source.voxels, asked.measure)
    return measure, model


def _measure(source: Source, asked: Preserve) -> Measure:
    """Return the measure that is asked of an image of its kind."""
    measure = MEASURES[asked.measure]
    kind = kind_of(source, stem(source.name).rpartition("_")[2])
    if kind not in (measure.kind, "image") or source.labels:
        what = "of labels" if source.labels else f"of kind {kind}"
        raise ConfigurationError(f"{source.label}: preserve {asked.measure}: {measure.what} is for images of kind "
                                 f"{measure.kind}, and this is one {what}")  # fmt: skip
    return measure


def first(source: Source, options: Options, curve: Curve | None = None) -> Options:
    """Return the options of the first trial, by what is usual."""
    asked = options.quality.preserve
    if asked is None:
        return options
    measure = _measure(source, asked)
    guess = first_guess(curve or measure.curve, _AIM * measure.loss(asked.bound))
    return replace(options, quality=_quality(_noisy(source), _limited(guess)))


def search(source: Source, options: Options, attempt: Callable[[Quality, Any], Trial],
           curve: Curve | None = None) -> Found:  # fmt: skip
    """Find the coarsest quality that keeps a measure within its bound, to about 5 % of the bytes.

    Parameters
    ----------
    source : Source
    options : Options
        Whose quality says what is to be preserved.
    attempt : callable
        Called with a quality and the trial before, if there is one; returns a trial.
    curve : optional
        Where to begin; by default that of the measure.

    Raises
    ------
    ConfigurationError
        If the image has no such measure.
    """
    asked = options.quality.preserve
    assert asked is not None
    measure, model = prepare(source, options)
    bound, noisy = measure.loss(asked.bound), _noisy(source)
    multiple = _limited(first_guess(curve or measure.curve, _AIM * bound))
    made: list[Attempt] = []
    seen: list[tuple[float, float]] = []
    best: tuple[float, Trial, float] | None = None
    broken, trial = math.inf, None

    def once(quality: Quality) -> tuple[Trial, float]:
        done = attempt(quality, trial)
        figure = figure_of(measure, model, source, done.decoded(), asked.measure)
        made.append(Attempt(quality=quality, figure=figure, kept=measure.loss(figure) <= bound, stored=done.stored))
        return done, figure

    while len(made) < TRIALS:
        trial, figure = once(_quality(noisy, multiple))
        loss = measure.loss(figure)
        seen.append((multiple, loss))
        if loss <= bound:
            if best is None or multiple > best[0]:
                best = multiple, trial, figure
            if loss >= _ENOUGH * bound or multiple >= _COARSEST:
                break
        else:
            broken = min(broken, multiple)
        if best is not None and broken <= best[0] * _NARROW:
            break
        if best is None and multiple <= _FINEST:
            break
        multiple = _next(seen, bound, 0.0 if best is None else best[0], broken)
    if best is None:
        trial, figure = once(Quality(lossless=True))
        best = 0.0, trial, figure
    return Found(trial=best[1], figure=best[2], attempts=tuple(made))


def _next(seen: list[tuple[float, float]], bound: float, kept: float, broken: float) -> float:
    """Return the multiple to try: where a power law through the last trials meets the bound, between what is known."""
    (x, y), slope = seen[-1], _SLOPE
    others = [(a, b) for a, b in seen[:-1] if b > 0 and abs(math.log(a / x)) > 0.01]
    if others and y > 0:
        a, b = min(others, key=lambda o: abs(math.log(o[1] / bound)))
        slope = min(max(math.log(y / b) / math.log(x / a), 0.5), 4.0)
    wanted = x * (_AIM * bound / y) ** (1 / slope) if y > 0 else x * 4
    if kept and broken < math.inf:
        edge = (broken / kept) ** 0.15
        wanted = min(max(wanted, kept * edge), broken / edge)
    return _limited(min(max(wanted, x / 4), x * 4))


def _limited(multiple: float) -> float:
    return float(f"{min(max(multiple, _FINEST), _COARSEST):.3g}")


def _noisy(source: Source) -> bool:
    """Return whether the noise of an image can be measured."""
    try:
        noise_of(source, measurement_axes(image_dims(source.voxels.ndim)))
    except ConfigurationError:
        return False
    return True


def _quality(noisy: bool, multiple: float) -> Quality:
    return Quality(noise=multiple) if noisy else Quality(psnr=round(40 - 20 * math.log10(multiple), 2))


def figure_of(measure: Measure, model: Model, source: Source, voxels: Image, name: str) -> float:
    """Return the figure of a decoded image.

    Raises
    ------
    ConfigurationError
        If there is none: no voxel is of the region it is measured in.
    """
    voxels = voxels[0] if voxels.ndim > model.mask.ndim + (measure.kind in ("dmri", "fmri")) else voxels
    wanted, region, statistic = measure.figure
    found = [one.value for one in model.compare(voxels.astype(source.voxels.dtype, copy=False)).findings
             if one.measure == wanted and one.statistic == statistic and region in ("", one.region)]  # fmt: skip
    known = [value for value in found if value is not None and np.isfinite(value)]
    if not known:
        where = f" in its {region}" if region else ""
        raise ConfigurationError(f"{source.label}: preserve {name}: nothing to measure it by{where}")
    return min(known) if measure.best else max(known)
