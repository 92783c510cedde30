"""Chunks -> siren payloads: which chunks a network may pay for; they are fitted together (`inrstore.chunk.inr.fit`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from inrstore.chunk import envelope
from inrstore.chunk.boxes import NO_BUDGET, Fitted
from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.layers import LINEAR, Layer
from inrstore.chunk.inr.network import MIN_SHIFT, Coordinates, Network
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions, ProgressCallback

_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_SMALLEST_FIT = 1024  # bytes of another mode under which no network can pay


def fit(
    tasks: Sequence[Task], sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[Fitted]:
    """Yield the payload of the network that is fitted to a task, where one may pay or has to hold it.

    Parameters
    ----------
    tasks : sequence of Task
    sizes : sequence of int
        Bytes of the frame to beat, of each.
    options : EncodeOptions
        Nothing is fitted unless it asks for networks.
    progress : callable, optional
    """
    if not options.networks or (options.network is not None and options.network.has_second):
        return
    wanted: list[FitTask] = []
    for index, (task, size) in enumerate(zip(tasks, sizes, strict=True)):
        one = fit_task(index, task, size)
        place = _one_place(task) if size == NO_BUDGET else None
        if place is not None:
            yield Fitted(index=index, payload=task.sealed(siren.write(place), split=True), decibels=0.0)
        elif one is not None:
            wanted.append(one)
        elif size == NO_BUDGET:
            yield Fitted(index=index, payload=None, reason=f"no network holds values above {_LARGEST:g}")
    if not wanted:
        return
    from inrstore.chunk.inr.fit.search import fit_networks

    for one, found in fit_networks(wanted, options, progress):
        payload = None if found.network is None else tasks[one.index].sealed(siren.write(found.network), split=True)
        yield Fitted(index=one.index, payload=payload, decibels=found.decibels)


def fit_task(index: int, task: Task, size: int) -> FitTask | None:
    """Return what there is to fit, or None when no network is wanted or could pay."""
    if task.target.rmse is None or size < _SMALLEST_FIT or task.chunk.dtype.kind == "b":
        return None
    core, around = task.split
    if task.mask is not None and size != NO_BUDGET:
        size -= len(envelope.write(replace(around, exceptions=None), task.chunk.shape))  # both must carry it
        if size < _SMALLEST_FIT:
            return None
    axis = task.channel_axis
    if not siren.space_axes(core.shape, axis) or max(abs(float(core.min())), abs(float(core.max()))) > _LARGEST:
        return None
    scale = task.scales
    if axis is not None and scale.size == 1:
        scale = np.repeat(scale, core.shape[axis])
    return FitTask(index=index, core=core, envelope=around, channel_axis=axis, scale=scale, target=task.target,
                   budget=size)  # fmt: skip


def _one_place(task: Task) -> siren.Siren | None:
    """Return a network that gives the values of a box of one place, None for another box: there is nothing to fit."""
    if task.target.rmse is None or task.chunk.dtype.kind == "b":
        return None
    core, axis = task.split[0], task.channel_axis
    if siren.space_axes(core.shape, axis) or not np.isfinite(largest := float(np.abs(core.astype(np.float64)).max())):
        return None
    exponent = math.frexp(largest)[1] - 26 if largest else 0
    exponent = max(exponent, 0) if core.dtype.kind in "iu" else max(-100, min(100, exponent))
    numbers = np.rint(np.ldexp(core.astype(np.float64), -exponent)).astype(np.int64).reshape(-1)
    layer = Layer(LINEAR, np.zeros((1, 0), np.int64), np.zeros(1, np.int64), 1)
    network = Network(Coordinates(0), (layer,), 1, np.zeros((numbers.size, 1), np.int64), np.ones(1, np.int64),
                      16 * numbers, MIN_SHIFT)  # fmt: skip
    return siren.Siren(axis, network, exponent, int(numbers.min()), int(numbers.max()))
