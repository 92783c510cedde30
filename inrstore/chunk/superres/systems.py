"""The systems of the papers: how an image is made coarse, and what refines it again. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.superres.network import Dense, Lengths, Operator, Plan
from inrstore.chunk.superres.resample import Filter, lanczos, low_pass, reduced
from inrstore.errors import ConfigurationError
from inrstore.options import Network

DENSE, OPERATOR = "lanczos-siren-srdensenet", "fourier-siren-srno"
CHANNELS, MOST_CHANNELS = 8, 64
_BLOCKS, _LAYERS = 2, 4
_CONVOLUTIONS, _ATTENTIONS, _HEAD = 2, 1, 16
_AXES = 3


@dataclass(frozen=True)
class System:
    """One system for volumes of some lengths.

    Parameters
    ----------
    how : callable
        The filter that makes an image coarse.
    plan : Dense or Operator
    reach, scales : tuple of int
        As in `Refiner`.
    absolute : bool
        Absolute rather than square errors are made small.
    """

    how: Filter
    plan: Plan
    reach: Lengths
    scales: Lengths
    absolute: bool

    def coarse(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return a volume (slices, rows, columns) on its coarse grid."""
        return reduced(image, [1 << e for e in self.scales], self.how)

    def loss(self, error: Any, weights: Any) -> Any:
        """Return the mean loss of errors of a tensor that have weights of a shape that broadcasts."""
        each = (error.abs() if self.absolute else error * error) * weights
        return each.sum() / weights.expand_as(error).sum().clamp(min=1.0)


def system_of(network: Network, axes: int, lengths: Lengths) -> System:
    """Return the system of a name for volumes with so many axes of space, the others being 1 long.

    The papers: 8 blocks of 8 layers, growth 16, for a network that one trains on many images; here 2 blocks of 4, for
    one that is fitted to a chunk and stored with it. No axis is made coarser than it is long.

    Raises
    ------
    ConfigurationError
        Naming the field of the options.
    """
    if not network.has_second:
        raise ConfigurationError(f"network {network.name} has no refining network; {DENSE} and {OPERATOR} have one")
    channels = network.channels or CHANNELS
    if not 1 <= channels <= MOST_CHANNELS:
        raise ConfigurationError(f"network: channels must be 1 to {MOST_CHANNELS}, not {channels}")
    exponent = (network.downsample or 2).bit_length() - 1
    flat = network.name == DENSE
    first = max(_AXES - axes, 1 if flat else 0)
    z, y, x = (0 if axis < first else min(exponent, n.bit_length() - 1) for axis, n in enumerate(lengths))
    a, b, c = (int(axis >= first) for axis in range(_AXES))
    if flat:
        plan: Plan = Dense(_BLOCKS, _LAYERS, channels, 2 * channels, 2 * channels)
        return System(lanczos, plan, (a, b, c), (z, y, x), absolute=False)
    width = 2 * channels
    heads = next(h for h in range(-(-width // _HEAD), width + 1) if width % h == 0)
    return System(low_pass, Operator(_CONVOLUTIONS, channels, width, heads, _ATTENTIONS), (a, b, c), (z, y, x),
                  absolute=True)  # fmt: skip
