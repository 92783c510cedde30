"""Chunks -> siren payloads: which chunks a network may pay for; they are fitted together (`inrstore.chunk.inr.fit`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from inrstore.chunk import envelope
from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.inr import siren
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions, ProgressCallback

_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_SMALLEST_FIT = 1024  # bytes of another mode under which no network can pay


def fit(
    tasks: Sequence[Task], sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[tuple[int, bytes]]:
    """Yield the index of a task and the payload of the network fitted to it, where one may pay.

    Parameters
    ----------
    tasks : sequence of Task
    sizes : sequence of int
        Bytes of the frame to beat, of each.
    options : EncodeOptions
        Nothing is fitted unless it asks for networks.
    progress : callable, optional
    """
    if not options.networks:
        return
    found = [fit_task(index, task, size) for index, (task, size) in enumerate(zip(tasks, sizes, strict=True))]
    wanted = [one for one in found if one is not None]
    if not wanted:
        return
    from inrstore.chunk.inr.fit.search import fit_networks

    for one, network in fit_networks(wanted, options, progress):
        if network is not None:
            yield one.index, tasks[one.index].sealed(siren.write(network), split=True)


def fit_task(index: int, task: Task, size: int) -> FitTask | None:
    """Return what there is to fit, or None when no network is wanted or could pay."""
    if task.target.rmse is None or size < _SMALLEST_FIT or task.chunk.dtype.kind == "b":
        return None
    core, around = task.split
    if task.mask is not None:
        size -= len(envelope.write(replace(around, exceptions=None), task.chunk.shape))  # both must carry it
        if size < _SMALLEST_FIT:
            return None
    axis = task.channel_axis
    if core.ndim - (axis is not None) < 1 or max(abs(float(core.min())), abs(float(core.max()))) > _LARGEST:
        return None
    scale = task.scales
    if axis is not None and scale.size == 1:
        scale = np.repeat(scale, core.shape[axis])
    return FitTask(index=index, core=core, envelope=around, channel_axis=axis, scale=scale, target=task.target,
                   budget=size)  # fmt: skip
