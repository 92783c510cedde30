"""Chunks -> superres payloads, where one of the systems is asked for (`inrstore.chunk.inr.fit.superres`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from inrstore.chunk.boxes import Fitted
from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.superres.decode import evaluate, shared_refiner, write
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions, ProgressCallback

_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_AXES = 3
_REFUSED = f"it is not one that two networks hold: numbers up to {_LARGEST:g} along one to three axes of space"


def fit(
    tasks: Sequence[Task], _sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[Fitted]:
    """Yield the payload of the networks that are fitted to a task: as close as they come to its values.

    Parameters
    ----------
    tasks : sequence of Task
        A shared parameter of their context that is a refining network is taken as it is.
    _sizes : sequence of int
    options : EncodeOptions
        Nothing is fitted unless its network has a second one.
    progress : callable, optional
    """
    network = options.network
    if network is None or not network.has_second:
        return
    found: list[FitTask] = []
    for index, task in enumerate(tasks):
        one = fit_task(index, task)
        if one is None:
            yield Fitted(index=index, payload=None, reason=_REFUSED)
        else:
            found.append(one)
    if not found:
        return
    from inrstore.chunk.inr.fit.superres import fit_payloads

    given = shared_refiner(tasks[found[0].index].context.shared)
    for one, payload in fit_payloads(found, network, options, given, progress):
        if payload is None:
            yield Fitted(index=one.index, payload=None, reason="the networks' numbers do not fit the format")
            continue
        task, target = tasks[one.index], one.target.rmse
        error = task.box.error(evaluate(payload, one.core.dtype, one.core.shape))
        over = math.inf if target is None or not error else 20 * math.log10(target / error)
        yield Fitted(index=one.index, payload=task.sealed(write(payload), split=True), decibels=over)


def fit_task(index: int, task: Task) -> FitTask | None:
    """Return what there is to fit, or None for chunks that the mode does not hold."""
    if task.target.rmse is None or task.chunk.dtype.kind == "b" or task.chunk.size < 2:
        return None
    core, around = task.split
    axis = task.channel_axis
    if not 1 <= core.ndim - (axis is not None) <= _AXES:
        return None
    if core.min() == core.max() or max(abs(float(core.min())), abs(float(core.max()))) > _LARGEST:
        return None
    scale = task.scales
    if axis is not None and scale.size == 1:
        scale = np.repeat(scale, core.shape[axis])
    return FitTask(index=index, core=core, envelope=around, channel_axis=axis, scale=scale, target=task.target,
                   budget=0)  # fmt: skip
