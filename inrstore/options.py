"""How to encode: values that change time and size, never the meaning of the bytes; they are not stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from inrstore.errors import ConfigurationError

Preset: TypeAlias = Literal["fast", "balanced", "small"]
Mode: TypeAlias = Literal["auto", "network", "transform", "av1"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
NetworkName: TypeAlias = Literal[
    "siren3d", "siren2d", "siren2d-relu", "mlp-relu", "mlp-tanh", "mlp-siren",
    "lanczos-siren-srdensenet", "fourier-siren-srno",
]  # fmt: skip
"""Systems of the papers: networks of a place, and small ones of a coarse grid with a second one that refines it."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network holds a chunk. What is 0 is chosen: by a search for the fewest bytes, or as is usual.

    Parameters
    ----------
    name : str
        One of `NetworkName`.
    layers, units : int
        Hidden layers of the network of a place, and units in each.
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
    """

    name: NetworkName = "siren3d"
    layers: int = 0
    units: int = 0
    steps: int = 0
    omega_0: float = 0.0
    rate: float = 0.0
    downsample: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.name not in get_args(NetworkName):
            raise ConfigurationError(f"network must be one of {', '.join(get_args(NetworkName))}, not {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Effort and device of an encode.

    Parameters
    ----------
    preset : {"fast", "balanced", "small"}
        How much time goes into each chunk. "fast" fits no network; "balanced" one that corrects the transform of a
        chunk; "small" several of these, and one that is the chunk alone.
    mode : {"auto", "network", "transform", "av1"}
        What a lossy chunk with a target rmse may be: the smallest that is found, a network where one keeps the
        target and is smaller than a grid of levels, wavelets, or AV1. A chunk that the mode asked for does not hold
        (AV1: several channels, few values, a fine target) is coded by another that keeps the target; `inrstore info`
        tells which. A library that is missing, or makes what no chunk may hold, is an error where it is asked for.
    device : {"auto", "cpu", "cuda"}
        Where networks are fitted; "auto" takes CUDA when present.
    seed : int
        Mixed with a hash of the chunk; the same input, seed and kind of device give the same bytes.
    threads : int
        Chunks worked on at a time on the CPU; 0 takes the number of processor cores available. It changes no bytes:
        a network has one thread, whatever the setting of torch.
    """

    preset: Preset = "balanced"
    mode: Mode = "auto"
    device: Device = "auto"
    seed: int = 0
    threads: int = 0

    @property
    def networks(self) -> bool:
        """Whether networks are fitted at all; torch is needed then."""
        return self.mode == "network" or (self.mode == "auto" and self.preset == "small")

    def __post_init__(self) -> None:
        for name, known in (("preset", get_args(Preset)), ("mode", get_args(Mode)), ("device", get_args(Device))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")


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
