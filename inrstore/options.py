"""How to encode: values that change time and size, never the meaning of the bytes; they are not stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from inrstore import limits
from inrstore.errors import ConfigurationError

Preset: TypeAlias = Literal["fast", "balanced", "small", "paper"]
Mode: TypeAlias = Literal["auto", "siren", "transform", "av1"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
NetworkName: TypeAlias = Literal[
    "siren3d", "siren2d", "siren2d-relu", "mlp-relu", "mlp-tanh", "mlp-siren",
    "lanczos-siren-srdensenet", "fourier-siren-srno",
]  # fmt: skip
"""Systems of the papers: networks of a place, and small ones of a coarse grid with a second one that refines it."""


_SYSTEMS = ("lanczos-siren-srdensenet", "fourier-siren-srno")
"""Those with a second network."""
MAX_STEPS = 10_000_000
MAX_CHANNELS = 256


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network holds a chunk. What is 0 is chosen: by a search for the fewest bytes, or as is usual.

    Parameters
    ----------
    name : str
        One of `NetworkName`.
    layers, units : int
        Hidden layers of the network of a place, and units in each.
    sine : {"first", "last"}
        Which layer of "mlp-siren" is a sine; the others are ReLUs.
    steps : int
        Optimiser steps of a fit.
    omega_0 : float
        First-layer frequencies of sine layers, radians per unit of coordinate.
    rate : float
        Peak learning rate.
    downsample : {0, 2, 4, 8}
        How many times coarser the grid of the first network is, for systems with a second one.
    channels : int
        Width of the second network: growth of SRDenseNet, feature channels of SRNO.

    Raises
    ------
    ConfigurationError
        Naming the field that is out of range, or that a network of this name does not have.
    """

    name: NetworkName = "siren3d"
    layers: int = 0
    units: int = 0
    sine: Literal["first", "last"] = "first"
    steps: int = 0
    omega_0: float = 0.0
    rate: float = 0.0
    downsample: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.name not in get_args(NetworkName):
            raise ConfigurationError(f"network must be one of {', '.join(get_args(NetworkName))}, not {self.name!r}")
        for name, most in (("layers", limits.MAX_LAYERS), ("units", limits.MAX_WIDTH), ("steps", MAX_STEPS),
                           ("channels", MAX_CHANNELS)):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise ConfigurationError(f"network: {name} must be a whole number up to {most}, not {value!r}")
        for name in ("omega_0", "rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
                raise ConfigurationError(f"network: {name} must be a number up to 1000000, not {value!r}")
            object.__setattr__(self, name, float(value))
        if isinstance(self.downsample, bool) or self.downsample not in (0, 2, 4, 8):
            raise ConfigurationError(f"network: downsample must be 2, 4 or 8, not {self.downsample!r}")
        if self.sine not in ("first", "last"):
            raise ConfigurationError(f"network: sine must be first or last, not {self.sine!r}")
        if self.sine != "first" and self.name != "mlp-siren":
            raise ConfigurationError(f"network: sine is for mlp-siren, not for {self.name}")
        if (self.downsample or self.channels) and not self.has_second:
            raise ConfigurationError(f"network: downsample and channels are for {' and '.join(_SYSTEMS)}, "
                                     f"not for {self.name}")  # fmt: skip

    @property
    def has_second(self) -> bool:
        """Whether a second network refines what the first one makes on a coarser grid."""
        return self.name in _SYSTEMS

    @property
    def sized(self) -> bool:
        """Whether its size is given, so that there is nothing to search for."""
        return bool(self.downsample and self.channels) if self.has_second else bool(self.units)

    @classmethod
    def of(cls, asked: Network | Mapping[str, Any] | str | None) -> Network | None:
        """Return the network that a user names, or describes by its fields.

        Raises
        ------
        ConfigurationError
        """
        if asked is None or isinstance(asked, Network):
            return asked
        values = {"name": asked} if isinstance(asked, str) else dict(asked)
        unknown = values.keys() - {one.name for one in fields(cls)}
        if unknown:
            raise ConfigurationError(f"network: {', '.join(sorted(map(str, unknown)))} is not known")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the name and what is given."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        given = {one.name for one in fields(self) if values[one.name] != one.default}
        return {name: value for name, value in values.items() if name == "name" or name in given}


@dataclass(frozen=True, kw_only=True)
class FitStep:
    """How a fit goes.

    Parameters
    ----------
    chunk : int
        Place in the list of chunks.
    stage : str
        "size 24" while a size is chosen, "fit", "rounding".
    step : int
        Of the stage.
    loss : float
        Mean square error as it is fitted, in the units of the fit.
    psnr : float
        dB over the range of each measurement.
    """

    chunk: int
    stage: str
    step: int
    loss: float
    psnr: float


FitLog: TypeAlias = Callable[[FitStep], None]


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Effort and device of an encode.

    Parameters
    ----------
    preset : {"fast", "balanced", "small", "paper"}
        How much time goes into each chunk. "fast" fits no network; "balanced" one that corrects the transform of a
        chunk; "small" several of these, and one that is the chunk alone. "paper" is mode siren as it was published:
        3 x 256 sines for each slice, unless `network` names others.
    mode : {"auto", "siren", "transform", "av1"}
        What a lossy chunk with a target rmse may be: the smallest that is found, a network where one keeps the
        target and is smaller than a grid of levels, wavelets, or AV1. A chunk that "transform" or "av1" does not hold
        (AV1: several channels, few values, a fine target) is coded by another that keeps the target; `inrstore info`
        tells which. With "siren" a network holds it, whatever it costs, unless all its values are one; an error says
        which chunk is out of reach. A library that is missing, or makes what no chunk may hold, is an error where it
        is asked for.
    network : Network, str or None
        Which network; one that is given makes the mode "siren".
    found : bool
        A network is kept with the error that it reaches; the target then only says how errors are weighted.
    device : {"auto", "cpu", "cuda"}
        Where networks are fitted; "auto" takes CUDA when present.
    seed : int
        Mixed with a hash of the chunk; the same input, seed and kind of device give the same bytes.
    threads : int
        Chunks worked on at a time on the CPU; 0 takes the number of processor cores available. It changes no bytes:
        a network has one thread, whatever the setting of torch.
    log_fit : callable, optional
        Called with a `FitStep` now and then, in whatever thread.
    """

    preset: Preset = "balanced"
    mode: Mode = "auto"
    network: Network | None = None
    found: bool = False
    device: Device = "auto"
    seed: int = 0
    threads: int = 0
    log_fit: FitLog | None = field(default=None, compare=False, repr=False)

    @property
    def networks(self) -> bool:
        """Whether networks are fitted that hold a chunk; torch is needed then."""
        return self.strict or (self.mode == "auto" and self.preset == "small")

    @property
    def strict(self) -> bool:
        """Whether networks hold every lossy chunk, or nothing does."""
        return self.mode == "siren"

    @property
    def planar(self) -> bool:
        """Whether there is a network for each slice."""
        name = "" if self.network is None else self.network.name
        return name.startswith("siren2d") or (self.preset == "paper" and name.startswith("mlp-"))

    @property
    def cubes(self) -> bool:
        """Whether there are networks for each cube of an image rather than for slabs."""
        return self.network is not None and self.network.name == "fourier-siren-srno"

    def __post_init__(self) -> None:
        for name, known in (("preset", get_args(Preset)), ("mode", get_args(Mode)), ("device", get_args(Device))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        object.__setattr__(self, "network", Network.of(self.network))
        if self.network is None and self.preset == "paper":
            object.__setattr__(self, "network", Network(name="siren2d"))
        if self.network is None and self.mode == "siren":
            object.__setattr__(self, "network", Network())
        if self.network is not None and self.mode not in ("auto", "siren"):
            raise ConfigurationError(f"mode {self.mode}: with network {self.network.name} it can only be siren")
        if self.network is not None:
            object.__setattr__(self, "mode", "siren")


def available_cores() -> int:
    """Return the cores this process may use; not every system can tell them from those that exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an encode stands.

    Parameters
    ----------
    chunks_done, chunks_total : int
        Chunks whose bytes are final, and all.
    fraction : float
        Estimated part of the work done, 0 to 1.
    rmse : float or None
        Current root mean square error of the nets being fitted, each divided by its target; 1 is on target.
    stage : str
        What is being done, for people.
    """

    chunks_done: int
    chunks_total: int
    fraction: float
    rmse: float | None
    stage: str


ProgressCallback: TypeAlias = Callable[[Progress], None]
