"""Chunks -> superres payloads, where one of the systems is asked for (`inrstore.chunk.inr.fit.superres`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.superres.decode import shared_refiner, write
from inrstore.chunk.superres.systems import NAMES
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions, Network, ProgressCallback

_LARGEST = 1e30  # magnitudes whose squares leave float32 are not for networks
_AXES = 3


def fit(
    tasks: Sequence[Task], _sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[tuple[int, bytes]]:
    """Yield the index of a task and the payload of the networks fitted to it: as close as they come to the values.

    Parameters
    ----------
    tasks : sequence of Task
        A shared parameter of their context that is a refining network is taken as it is.
    _sizes : sequence of int
    options : EncodeOptions
        Nothing is fitted unless its network is one of `NAMES`.
    progress : callable, optional
    """
    network: Network | None = getattr(options, "network", None)
    if network is None or network.name not in NAMES:
        return
    found = [one for index, task in enumerate(tasks) if (one := fit_task(index, task)) is not None]
    if not found:
        return
    from inrstore.chunk.inr.fit.superres import fit_payloads

    given = shared_refiner(tasks[found[0].index].context.shared)
    for one, payload in fit_payloads(found, network, options, given, progress):
        if payload is not None:
            yield one.index, tasks[one.index].sealed(write(payload), split=True)


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
