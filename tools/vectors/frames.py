"""Make frames from values, grids and random networks of fixed seeds; edit valid frames and seal them again."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, frame, modes
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.byteplanes import encode as byteplanes
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.encode import seal
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.layers import BY_NAME, Layer
from inrstore.chunk.inr.network import Coordinates, Network, pack_gain, unpack_gain

Array = npt.NDArray[Any]


def reseal(frame_bytes: bytes) -> bytes:
    """Return a frame with its last four bytes made the checksum of the others again."""
    body = frame_bytes[:-4]
    return body + struct.pack("<I", int(google_crc32c.value(body)))


def edit(frame_bytes: bytes, position: int, new: bytes) -> bytes:
    """Return the frame with bytes replaced at a position, sealed again."""
    return reseal(frame_bytes[:position] + new + frame_bytes[position + len(new) :])


def repack(frame_bytes: bytes, payload: bytes) -> bytes:
    """Return the frame with another payload, its length and the frame's checksum put right."""
    at = frame.header_size(frame_bytes[7])
    return reseal(frame_bytes[: at - 4] + struct.pack("<I", len(payload)) + payload + bytes(4))


def payload_of(frame_bytes: bytes) -> bytes:
    """Return the payload of a valid frame."""
    return frame_bytes[frame.header_size(frame_bytes[7]) : -4]


def patch(frame_bytes: bytes, position: int, new: bytes) -> bytes:
    """Return the frame with bytes of its payload replaced, sealed again."""
    return edit(frame_bytes, frame.header_size(frame_bytes[7]) + position, new)


def smooth(shape: tuple[int, ...], dtype: str, seed: int, amplitude: float = 900.0) -> Array:
    """Return values that vary slowly along every axis, with a little noise."""
    rng = np.random.default_rng(seed)
    total = np.full(shape, amplitude)
    for axis, n in enumerate(shape):
        wave = np.sin(np.arange(n) * rng.uniform(0.2, 0.8) + rng.uniform(0, 6)) * amplitude / (axis + 2)
        total = total + wave.reshape([n if a == axis else 1 for a in range(len(shape))])
    total = total + rng.normal(0, amplitude / 100, shape)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return np.clip(np.rint(total), info.min, info.max).astype(kind)
    return total.astype(kind)


def boxed(start: tuple[int, ...], stop: tuple[int, ...], fill: Array) -> Envelope:
    """Return an envelope with a box and no exceptions."""
    return Envelope(start, stop, fill.tobytes())


def with_exceptions(envelope: Envelope, dtype: str, seed: int) -> Envelope:
    """Return the envelope with a few non-finite values of many bit patterns in its box."""
    rng = np.random.default_rng(seed)
    marks = np.asarray(rng.random(envelope.box_shape) < 0.12)
    marks.reshape(-1)[[0, -1]] = True
    kind = np.dtype(dtype)
    width = kind.itemsize
    exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}[width]
    payloads = rng.integers(0, 1 << {2: 10, 4: 23, 8: 52}[width], int(marks.sum()), dtype=np.uint64)
    pattern = payloads | np.uint64(exponent)
    pattern[0] = exponent  # infinity, beside NaNs with payloads, quiet and signalling
    pattern[-1] |= np.uint64(1 << (8 * width - 1))
    values = pattern.astype(dtypes.bits_dtype(width)).view(kind)
    return replace(envelope, exceptions=marks, values=values)


def with_mask(envelope: Envelope, mask: Array, fill: Array) -> Envelope:
    """Return the envelope with a mask of the shape of its box, 1 long on axes along which it does not vary."""
    return replace(envelope, mask=mask, fill=fill.tobytes())


def ball(shape: tuple[int, ...]) -> Array:
    """Return a mask that is True within the largest ellipsoid of a box, a little askew."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    return np.asarray(sum((a + 0.05 * i) ** 2 for i, a in enumerate(axes)) <= 1)


def planes_frame(
    like: Array, grid: Quantiser | None, envelope: Envelope | None = None, core: Array | None = None
) -> bytes:
    """Return a frame in mode byteplanes; `like` gives shape, dtype and layout, `core` the values of the box."""
    envelope = envelope or envelopes.whole(like.shape)
    if core is None:
        core = np.array(like, like.dtype.newbyteorder("<"), order="C")[envelope.box]
    payload = envelopes.write(envelope, like.shape) + byteplanes.encode(np.ascontiguousarray(core), grid)
    return seal(modes.BYTEPLANES, like, payload)


def grid_of(core: Array, step: float | Sequence[float], axis: int | None = None) -> Quantiser:
    """Return the grid of these steps over an array."""
    return Quantiser.over(core, np.atleast_1d(np.asarray(step, np.float64)), axis)


@dataclass(frozen=True, kw_only=True)
class Net:
    """A random network to order; see `siren.Siren` and `network.Network` for the fields that are passed on.

    Parameters
    ----------
    layers, width : int
        Hidden layers, and units in each.
    activations : str
        Names, repeated as often as there are layers.
    widths : tuple of int, optional
        Units in each layer, where they differ.
    """

    seed: int
    layers: int
    width: int
    axis: int | None = None
    exponent: int = 0
    shift: int = 22
    low: int = -2000
    high: int = 2000
    amplitude: float = 700.0
    centre: float = 0.0
    spread: int = 12
    each: bool = False
    density: float = 1.0
    frequency: float = 0.15
    activations: str = "sine"
    widths: tuple[int, ...] | None = None

    def build(self, box: tuple[int, ...]) -> siren.Siren:
        """Return the network for a box of this shape."""
        rng = np.random.default_rng(self.seed)
        channels = 1 if self.axis is None else box[self.axis]
        inputs = len(siren.space_axes(box, self.axis))
        names = self.activations.split()
        widths = self.widths or (self.width,) * self.layers

        def weights(rows: int, columns: int, density: float = 1.0) -> npt.NDArray[np.int64]:
            bell = np.rint(rng.laplace(0, self.spread / 2, (rows, columns)))
            kept = rng.random((rows, columns)) < density
            return (np.clip(bell, -1023, 1023) * kept).astype(np.int64)

        matrices = [weights(widths[0], inputs)]
        matrices += [weights(b, a, self.density) for a, b in itertools.pairwise(widths)]
        turn = 2**32
        # A step of the first layer turns by about `frequency` for a typical weight; inner sums by about a third.
        first = round(self.frequency * turn / (2 * self.spread))
        inner = round(turn / (3 * 700 * self.spread * max(1, self.width * self.density) ** 0.5))
        multipliers = [first, *(inner + 2 * i for i in range(len(widths) - 1))]
        typical = 700 * self.spread * widths[-1] ** 0.5
        gain = self.amplitude / typical * (rng.uniform(0.3, 1.5, channels) if self.each else np.ones(1))
        shift = min(self.shift, math.floor(26.9 - math.log2(gain.max())))
        gain *= 2.0**shift
        codes = np.array([pack_gain(float(g)) for g in gain])
        offsets = np.rint(16 * (self.centre + rng.uniform(-0.2, 0.2, channels) * self.amplitude)).astype(np.int64)
        offsets = offsets.astype(np.int32)  # those of the largest amplitudes wrap
        biases = np.split(weights(1, sum(widths))[0], np.cumsum(widths)[:-1])
        readout = weights(channels, widths[-1])
        layers = []
        for i, (matrix, bias, multiplier) in enumerate(zip(matrices, biases, multipliers, strict=True)):
            activation = BY_NAME[names[i % len(names)]]
            if not activation.wraps:  # a third of a turn would be an output of 85: the others have to fill 1023
                multiplier *= 8
            layers.append(Layer(activation, matrix, bias, multiplier))
        network = Network(Coordinates(inputs), tuple(layers), turn // 64 + 1, readout, unpack_gain(codes), offsets,
                          shift)  # fmt: skip
        return siren.Siren(self.axis, network, self.exponent, self.low, self.high)


def altered(made: siren.Siren, **fields: Any) -> siren.Siren:
    """Return a siren with other fields; those of its network are replaced there, those of layers layer by layer.

    `activations`, `weights`, `biases` and `multipliers` are sequences with an entry for each layer; the last
    multiplier is that of the biases.
    """
    network, own = made.network, {f: fields.pop(f) for f in ("channel_axis", "exponent", "low", "high") if f in fields}
    layers = list(network.layers)
    if "multipliers" in fields:
        *each, last = fields.pop("multipliers")
        layers = [replace(a, multiplier=m) for a, m in zip(layers, each, strict=True)]
        fields["bias_multiplier"] = last
    if "activations" in fields:
        layers = [replace(a, activation=BY_NAME[n]) for a, n in zip(layers, fields.pop("activations"), strict=True)]
    if "weights" in fields:
        layers = [replace(a, weights=w) for a, w in zip(layers, fields.pop("weights"), strict=True)]
    if "biases" in fields:
        layers = [replace(a, biases=b) for a, b in zip(layers, fields.pop("biases"), strict=True)]
    return replace(made, network=replace(network, layers=tuple(layers), **fields), **own)


def siren_frame(like: Array, net: Net | siren.Siren, envelope: Envelope | None = None) -> bytes:
    """Return a frame in mode siren; `like` gives shape, dtype and layout."""
    envelope = envelope or envelopes.whole(like.shape)
    network = net.build(envelope.box_shape) if isinstance(net, Net) else net
    return seal(modes.SIREN, like, envelopes.write(envelope, like.shape) + siren.write(network))


def like(shape: tuple[int, ...], dtype: str, order: str = "C") -> Array:
    """Return an empty array that gives shape, dtype and layout to a frame."""
    return np.zeros(shape, dtype, order="F" if order == "F" else "C")
