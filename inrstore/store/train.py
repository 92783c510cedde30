"""Images -> a file with a network that predicts their values, which lossless stores of images like these share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inrstore import files
from inrstore.chunk.encode import require_fit
from inrstore.chunk.neural.train import Training, train, values_of
from inrstore.errors import ConfigurationError
from inrstore.sources import read_source
from inrstore.store.container import refuse_existing
from inrstore.store.parameter import write_parameter
from inrstore.store.reports import JobCallback, JobProgress


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What was trained.

    Parameters
    ----------
    file : str
    images, values : int
        What it learned from.
    radii, units : tuple of int
        Its neighbourhood, own slice first, and its hidden layers.
    parameters, bytes : int
        Weights and biases; bytes of the shared parameter.
    digest : str
        SHA-256 of the parameter, in hex: chunks name it so.
    steps : int
    first_error, last_error : float
        Mean absolute error of a prediction at the start and at the end, in units of the input.
    seconds : float
    """

    file: str
    images: int
    values: int
    radii: tuple[int, ...]
    units: tuple[int, ...]
    parameters: int
    bytes: int
    digest: str
    steps: int
    first_error: float
    last_error: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def train_images(
    images: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], training: Training,
    progress: JobCallback | None = None,
) -> TrainReport:  # fmt: skip
    """Train a predictor on images and write it to a file.

    Parameters
    ----------
    images : sequence of path-like or str
        Paths or URLs; all are in memory together.
    out : path-like or str
        A file of this machine; must not exist.
    training : Training
    progress : callable, optional

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, MissingDependencyError
    """
    began, path = time.perf_counter(), os.fspath(out)
    if files.is_url(path):
        raise ConfigurationError(f"{path}: a file of this machine is needed")
    if not images:
        raise ConfigurationError("no image to train on")
    require_fit()
    refuse_existing(path)
    values = []
    for image in images:
        source = read_source(image)
        try:
            values.append(values_of(source.voxels))
        except ConfigurationError as error:
            raise ConfigurationError(f"{source.label}: {error}") from None
    errors, steps = list[float](), training.optimiser_steps

    def report(step: int, error: float) -> None:
        errors.append(error)
        if progress is not None:
            progress(JobProgress(stage=f"training, mean error {error:.2f}", chunks_done=step, chunks_total=steps,
                                 fraction=step / steps, seconds=time.perf_counter() - began, mb_per_s=0.0,
                                 unit="steps"))  # fmt: skip

    network = train(values, training, report)
    write_parameter(path, network.data)
    return TrainReport(
        file=path, images=len(values), values=sum(v.size for v in values), radii=network.neighbourhood.radii,
        units=network.widths, parameters=network.parameters, bytes=len(network.data), digest=network.digest.hex(),
        steps=steps, first_error=errors[0], last_error=errors[-1], seconds=time.perf_counter() - began,
    )  # fmt: skip
