"""Section 7: networks of integers, read from bytes and evaluated. Arrays of uint32 and int32 wrap modulo 2^32."""

import math
from typing import Any

import numpy as np
from decoder_parts import Lanes, Reader, check, counts_of

SINE = np.rint(1023 * np.sin(2 * np.pi * (np.arange(4096) + 0.5) / 4096)).astype(np.int64)
TANH = np.rint(1023 * np.tanh((np.arange(4096) - 2048 + 0.5) / 512)).astype(np.int64)


def units(z: np.ndarray) -> np.ndarray:
    return (z + 2**23) >> 24


# Section 7.4: whether z wraps, and f.
ACTIVATIONS: dict[int, tuple[bool, Any]] = {
    0: (False, lambda z: np.clip(units(z), -1023, 1023)),
    1: (True, lambda z: SINE[z >> 20]),
    2: (False, lambda z: np.clip(units(z), 0, 1023)),
    3: (False, lambda z: TANH[np.clip(z >> 20, -2048, 2047) + 2048]),
}


def short(t: int) -> int:
    """A short number of section 7.1."""
    return (t & 0xFFF) << (t >> 12)


class Network:
    """Section 7.1: the fields; reading ends where the network does."""

    def __init__(self, payload: Reader) -> None:
        size = len(payload.rest)
        check((kind := payload.number("u8", "inputs")) <= 1, "inputs", f"{kind} is reserved")
        self.coordinates, self.magnitude = kind == 0, 0
        if self.coordinates:
            check((inputs := payload.number("u8", "axes")) <= 8, "axes", f"{inputs} is above 8")
        else:
            check(1 <= (inputs := payload.number("u16", "values")) <= 4096, "values", f"{inputs} is not in 1..4096")
            self.magnitude = payload.number("u16", "magnitude")
            check(1 <= self.magnitude <= 32767, "magnitude", f"{self.magnitude} is not in 1..32767")
        self.inputs = inputs
        check(1 <= (layers := payload.number("u8", "layers")) <= 16, "layers", f"{layers} is not in 1..16")
        self.activations, heights = [], []
        for _ in range(layers):
            self.activations.append(payload.number("u8", "activation"))
            check(self.activations[-1] in ACTIVATIONS, "activation", f"{self.activations[-1]} is reserved")
            heights.append(payload.number("u8", "width") + 1)
        check((outputs := payload.number("u32", "outputs")) >= 1, "outputs", "there are none")
        self.outputs = outputs
        shapes = [*zip(heights, [inputs, *heights[:-1]], strict=True), (1, sum(heights)), (outputs, heights[-1])]
        parameters = sum(sizes := [rows * columns for rows, columns in shapes])
        check(parameters <= min(2**22, 64 * size), "outputs", f"{parameters} parameters are too many")
        self.parameters = parameters
        self.multipliers = payload.array("<u4", layers + 1, "multipliers").tolist()
        tables = []
        for _ in range(layers + 2):
            slope, bend, peak = (payload.number("u16", field) for field in ("slope", "bend", "peak"))
            check(peak <= 1023, "peak", f"{peak} is above 1023")
            slope, bend = 2**32 - 1 - 32 * short(slope), 2**32 - 1 - 32 * short(bend)
            tables.append((np.arange(-peak, peak + 1), counts_of(slope, bend, peak)))
        check(4 <= (shift := payload.number("u8", "shift")) <= 34, "shift", f"{shift} is not in 4..34")
        self.shift = shift
        check((gain_kind := payload.number("u8", "gain_kind")) <= 1, "gain_kind", f"{gain_kind} is reserved")
        gains = payload.array("<u2", outputs if gain_kind else 1, "gains").astype(np.int64)
        self.gains = (gains & 0xFFF) << (gains >> 12)
        check(1 <= (n := payload.number("u8", "offset_bytes")) <= 4, "offset_bytes", f"{n} is not in 1..4")
        digits = payload.array("u1", n * outputs, "offsets").astype(np.int64).reshape(outputs, n)
        digits[:, -1] = (digits[:, -1] ^ 128) - 128  # the last byte has the sign
        self.offsets = (digits << 8 * np.arange(n)).sum(1)
        check(np.all(np.abs(self.offsets) << (shift - 4) < 2**52), "offsets", "one leaves the range")
        lanes = max(1, math.ceil(parameters / 1024))
        stream = payload.take(4 * lanes + 2 * payload.number("u32", "words"), "stream")
        coded = Lanes(Reader(stream), lanes, tables)
        symbols = coded.run(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
        coded.finish()
        groups = [g.reshape(s) for g, s in zip(np.split(symbols, np.cumsum(sizes)[:-1]), shapes, strict=True)]
        self.weights, self.readout = groups[:layers], groups[-1]
        self.biases = np.split(groups[layers][0], np.cumsum(heights)[:-1])
        self.check_rows()

    def check_rows(self) -> None:
        """Section 7.2, first point."""
        most = [self.magnitude] + [1023] * len(self.weights)  # coordinates have no such limit
        for x, rows in zip(most, [*self.weights, self.readout], strict=True):
            check(np.all(np.abs(rows).sum(1) * x < 2**24), "stream", "a row of weights is too large")

    def check_sums(self, largest: list[int]) -> None:
        """Section 7.2, second point; `largest` are the magnitudes X of the inputs."""
        for layer, activation in enumerate(self.activations):
            if not ACTIVATIONS[activation][0]:
                rows = np.abs(self.weights[layer])
                reach = rows @ np.array(largest, np.int64) if layer == 0 else 1023 * rows.sum(1)
                for r, b in zip(reach.tolist(), np.abs(self.biases[layer]).tolist(), strict=True):
                    z = r * self.multipliers[layer] + b * self.multipliers[-1]
                    check(z < 2**52, "stream", "a sum is too large")

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Section 7.3: K, outputs x points, of inputs x, inputs x points."""
        y = x.astype(np.int64)
        for layer, activation in enumerate(self.activations):
            wraps, f = ACTIVATIONS[activation]
            sums, biases = self.weights[layer] @ y, self.biases[layer][:, None]
            if wraps:
                z = sums.astype(np.uint32) * np.uint32(self.multipliers[layer])
                z += biases.astype(np.uint32) * np.uint32(self.multipliers[-1])
            else:
                z = sums * self.multipliers[layer] + biases * self.multipliers[-1]
            y = f(z)
        k = (self.readout @ y) * self.gains[:, None] + (self.offsets << (self.shift - 4))[:, None]
        return (k + (1 << (self.shift - 1))) >> self.shift
