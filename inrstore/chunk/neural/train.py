"""Images -> a network that predicts values from their neighbours (specification section 13.2), which chunks share.

A door to `inrstore.chunk.inr.fit.lossless`: what users choose becomes its plan; torch is loaded when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.encode import require_fit
from inrstore.chunk.neural.encode import steps_of
from inrstore.chunk.neural.neighbourhood import PYRAMID, Neighbourhood, cube, fold
from inrstore.chunk.neural.network import Network
from inrstore.errors import ConfigurationError
from inrstore.options import Device

Architecture: TypeAlias = Literal["cube", "pyramid"]
Recipe: TypeAlias = Literal["usual", "paper"]

_STEPS = 6000
_WIDE = 256
"""Units from which a layer learns more steadily at a lower rate."""
_PAPER_WIDTHS, _PAPER_RADIUS = (1024, 512, 256, 128), 5
_PAPER_BATCH: dict[str, tuple[int, float]] = {"cube": (256, 2e-4), "pyramid": (32, 3e-5)}
"""Values in a step and the learning rate, as Nagoor et al. published them."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Which network to train, and how.

    Parameters
    ----------
    architecture : {"cube", "pyramid"}
        The neighbours that it sees: the causal half of a cube, or 13 x 13, 9 x 9, 5 x 5 and 1 x 1 values of the own
        slice and of the three before.
    radius : int
        Of the cube; 5 is 11 x 11 x 11. 0 takes 2, or 5 as published.
    units : tuple of int
        Of the hidden layers. Nothing takes two of 32, or as published 1024, 512, 256 and 128.
    steps : int
        Of the optimiser; 0 takes 6,000.
    recipe : {"usual", "paper"}
        "paper": inputs and outputs in the range of the image, plain loss, batch and learning rate as published.
        "usual" sees differences from near neighbours, and weighs errors by how much these differ.
    device : {"auto", "cpu", "cuda"}
    seed : int

    Raises
    ------
    ConfigurationError
        Naming what is wrong.
    """

    architecture: Architecture = "cube"
    radius: int = 0
    units: tuple[int, ...] = ()
    steps: int = 0
    recipe: Recipe = "usual"
    device: Device = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        known = (("architecture", Architecture), ("recipe", Recipe), ("device", Device))
        for name, kind in known:
            if getattr(self, name) not in get_args(kind):
                raise ConfigurationError(
                    f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}"
                )
        if self.radius and self.architecture == "pyramid":
            raise ConfigurationError("radius is that of a cube; a pyramid has radii of its own")
        most = min(limits.MAX_NEURAL_RADIUS, limits.MAX_NEURAL_SLICES - 1)
        if not 0 <= self.radius <= most:
            raise ConfigurationError(f"radius must be 1 to {most}, not {self.radius}")
        if len(self.units) > limits.MAX_NEURAL_LAYERS:
            raise ConfigurationError(f"units: {len(self.units)} layers; the most is {limits.MAX_NEURAL_LAYERS}")
        if not all(1 <= n <= limits.MAX_NEURAL_WIDTH for n in self.units):
            raise ConfigurationError(f"units must be 1 to {limits.MAX_NEURAL_WIDTH} in each layer, not {self.units}")
        if self.steps < 0:
            raise ConfigurationError(f"steps must be 1 or more, not {self.steps}")

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Which neighbours it sees."""
        if self.architecture == "pyramid":
            return PYRAMID
        return cube(self.radius or (_PAPER_RADIUS if self.recipe == "paper" else 2))

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        return self.units or (_PAPER_WIDTHS if self.recipe == "paper" else (32, 32))

    @property
    def optimiser_steps(self) -> int:
        """Steps of the optimiser."""
        return self.steps or _STEPS


def values_of(image: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return the values of an image as a network sees them: (m, z, y, x), the least 0, in steps.

    Parameters
    ----------
    image : ndarray
        Numbers of at most four bytes; any byte order, slowest axis first.

    Raises
    ------
    ConfigurationError
        A data type or a range that the mode does not code, or no values.
    """
    plain = np.ascontiguousarray(image, dtypes.little(image.dtype))
    if not dtypes.is_short(plain.dtype):
        raise ConfigurationError(f"values are {image.dtype}: predictors code numbers of at most four bytes")
    if not plain.size:
        raise ConfigurationError("no values")
    found = steps_of(plain, None)
    if found is None:
        raise ConfigurationError(f"values of more than {limits.MAX_PREDICTOR_RANGE + 1} levels")
    return found[2].reshape(fold(image.shape))


def train(
    images: Sequence[npt.NDArray[np.uint16]], training: Training, report: Callable[[int, float], None] | None = None
) -> Network:
    """Return the integer network that is trained on images.

    Parameters
    ----------
    images : sequence of ndarray of uint16, shape (m, z, y, x)
        As `values_of` gives them.
    training : Training
        The same images, training, kind of device and number of torch's threads give the same network.
    report : callable, optional
        Called with the step and the mean absolute error, in units of the input, now and then.

    Raises
    ------
    MissingDependencyError
        Without torch.
    ConfigurationError
        When the network is too large for a codec configuration, or a GPU is asked for and there is none.
    """
    require_fit()
    from inrstore.chunk.inr.fit import lossless
    from inrstore.chunk.inr.fit.search import choose_device
    from inrstore.options import EncodeOptions

    paper, wide = training.recipe == "paper", max(training.widths) >= _WIDE
    batch, rate = _PAPER_BATCH[training.architecture] if paper else (8192, 1e-3) if wide else (2048, 4e-3)
    plan = lossless.Plan(
        neighbourhood=training.neighbourhood, widths=training.widths, local=not paper, relative=not paper,
        steps=training.optimiser_steps, batch=batch, rate=rate, seed=training.seed,
    )  # fmt: skip
    device = choose_device(EncodeOptions(device=training.device))
    network = lossless.train(images, plan, str(device), report=report)
    if len(network.data) > limits.MAX_SHARED_BYTES:
        raise ConfigurationError(
            f"the network has {len(network.data)} bytes, more than the {limits.MAX_SHARED_BYTES} of a shared parameter"
        )
    return network
