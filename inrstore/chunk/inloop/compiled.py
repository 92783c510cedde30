"""Corrections by compiled loops: the same as `correction.inputs_of` and `network.Evaluator` give."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt

from inrstore.chunk.inr.layers import LINEAR, RELU, SINE, sine_table
from inrstore.chunk.inr.network import Network, Values

Ints = npt.NDArray[np.int64]
Volumes = npt.NDArray[np.float64]

ACTIVATIONS = (LINEAR, SINE, RELU)
"""What the loops know; a network with any other is evaluated by numpy."""


def added(loops: ModuleType, volumes: Volumes, shifts: Sequence[int], difference_shifts: Sequence[int], offsets: Ints,
          network: Network, box: tuple[slice, slice, slice]) -> Volumes:  # fmt: skip
    """Return what a network adds to the leading components.

    Parameters
    ----------
    loops : module
        `inrstore.chunk.kernels.network`.
    volumes : ndarray of float64, shape (components, slices, rows, columns)
    shifts, difference_shifts, offsets, network
        Of `Correction`, checked; activations are among `ACTIVATIONS`.
    box : tuple of slice
        Slices, rows and columns of the positions.

    Returns
    -------
    ndarray of float64, shape (outputs, slices, rows, columns)
        Integers, at the positions.
    """
    assert isinstance(network.inputs, Values)
    layers, weights, biases, begin, first = [], [], [], 0, 0
    for layer in network.layers:
        units, inputs = layer.weights.shape
        layers.append([units, inputs, layer.activation.code, layer.multiplier, begin, first])
        weights.append(layer.weights.reshape(-1).astype(np.float32))
        biases.append(layer.biases.astype(np.int64) * network.bias_multiplier)
        begin, first = begin + units * inputs, first + units
    out = np.empty((network.outputs, *(s.stop - s.start for s in box)))
    additions = (network.offsets.astype(np.int64) << (network.shift - 4)) + (1 << (network.shift - 1))
    loops.correct(
        np.ascontiguousarray(volumes), out, np.array([s.start for s in box], np.int64),
        np.array(shifts, np.int64), np.array(difference_shifts, np.int64),
        np.ascontiguousarray(offsets * (np.array(volumes.shape[1:]) > 1), np.int64), network.inputs.magnitude,
        np.array(layers, np.int64), np.concatenate(weights), np.concatenate(biases), np.array(sine_table()),
        np.ascontiguousarray(network.readout, np.float32),
        np.array(np.broadcast_to(network.gains, network.outputs), np.int64), additions,
        network.shift)  # fmt: skip
    return out
