"""Section 13 of `inrstore-1.md`: mode 6, a network that predicts. `decoder.py` hands it box and shared networks.

Sums are made of int64 numbers, value by value of a step; nothing here is fast.
"""

import hashlib
import itertools
import math

import numpy as np
from decoder_parts import Lanes, Reader, check, counts_of, from_order, read_column
from decoder_predictor import Tables, context_of


# Section 13.2. Network.
class Network:
    """A network; all its limits are checked."""

    def __init__(self, data: bytes | memoryview) -> None:
        payload = Reader(data)
        check(1 <= (slices := payload.number("u8", "slices")) <= 6, "slices", f"{slices} is not in 1..6")
        self.radii = payload.array("u1", slices, "radii").tolist()
        check(self.radii[0] >= 1 and max(self.radii) <= 6, "radii", f"{self.radii} is not allowed")
        check((inputs := payload.number("u8", "inputs")) <= 1, "inputs", f"{inputs} is reserved")
        self.local = inputs == 1
        check((leak := payload.number("u8", "leak")) <= 15, "leak", f"{leak} is above 15")
        check(1 <= (clip := payload.number("u16", "clip")) <= 16383, "clip", f"{clip} is not in 1..16383")
        check((layers := payload.number("u8", "layers")) <= 8, "layers", f"{layers} is above 8")
        widths = payload.array("<u2", layers, "widths").tolist()
        check(all(1 <= h <= 1024 for h in widths), "widths", f"{widths} are not in 1..1024")
        self.neighbours = [
            (-back, dy, dx)
            for back in reversed(range(slices))
            for dy, dx in itertools.product(range(-self.radii[back], self.radii[back] + 1), repeat=2)
            if (-back, dy, dx) < (0, 0, 0)
        ]
        shapes = [(h, before) for before, h in itertools.pairwise([len(self.neighbours), *widths, 1])]
        sizes = [rows * columns for rows, columns in shapes]
        check(sum(sizes) <= min(2**22, 64 * len(data)), "widths", f"{sum(sizes)} weights are too many")
        shifts = payload.array("u1", layers + 1, "shifts").tolist()
        check(max(shifts) <= 24, "shifts", f"{max(shifts)} is above 24")
        tables = []
        for _ in shapes:
            slope, bend = payload.number("u32", "slope"), payload.number("u32", "bend")
            check((peak := payload.number("u16", "peak")) <= 1023, "peak", f"{peak} is above 1023")
            tables.append((np.arange(-peak, peak + 1), counts_of(slope, bend, peak)))
        biases = [payload.array("<i4", rows, "biases").astype(np.int64) for rows, _ in shapes]
        stream = Lanes(payload, max(1, -(-sum(sizes) // 1024)), tables)
        symbols = stream.run(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
        stream.finish()
        weights = [part.reshape(of) for part, of in zip(np.split(symbols, np.cumsum(sizes)[:-1]), shapes, strict=True)]
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            reach = np.abs(w).sum(axis=1) * (1023 if layer else clip) + np.abs(b)
            check(np.all(reach < 2**24), "weights", f"a row of layer {layer} is too large")
        self.clip, self.leak, self.layers = clip, leak, list(zip(weights, biases, shifts, strict=True))

    def evaluate(self, v: np.ndarray, c: np.ndarray, gain: int, high: int) -> np.ndarray:
        """Section 13.3: return p; `v` has a row for each neighbour, and a column for each value."""
        x = np.clip((v - c) * gain >> 8, -self.clip, self.clip)
        for layer, (w, b, shift) in enumerate(self.layers, 1):
            x = w @ x + b[:, None] >> shift
            if layer < len(self.layers):
                x = np.clip(np.maximum(x, x >> self.leak), -1023, 1023)
        return np.clip(256 * c + 256 * x[0] // gain, 0, 256 * high)


# Section 13.4. Values. Neighbours (dz, dy, dx) of the centre, of the near differences, and of the errors.
CENTRE = [(0, -1, -1), (0, -1, 0), (0, -1, 1), (0, 0, -1)]
BEFORE = [(-1, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
LINES = [(-2, -1, 1), (-1, -2, 1), (0, -3, -1)]
ERRORS = BEFORE + [(0, dy, dx) for dy, first, last in LINES for dx in range(first, last + 1)]


class Streams:
    """Symbols, escapes and low bits of section 12.8."""

    def __init__(self, payload: Reader, n: int, high: int) -> None:
        self.high, self.tables, self.taken = high, Tables(payload), 0
        check((lanes := payload.number("u8", "lanes")) <= 12, "lanes", f"{lanes} is above 12")
        check(n <= 2 ** (lanes + 15), "lanes", f"2^{lanes} for {n} values")
        number = payload.number("u32", "escapes")
        check(number <= n, "escapes", f"{number} of {n} values")
        self.escapes = payload.array("<u2", number, "escapes").astype(np.int64)
        check(np.all(self.escapes <= high), "escapes", "one is too large")
        low = payload.take(payload.number("u32", "low_bits"), "low_bits")
        self.low_bits = np.unpackbits(np.frombuffer(low, np.uint8), bitorder="little").tolist()[::-1]
        self.symbols = Lanes(payload, 2**lanes, self.tables.tables)

    def values(self, p: np.ndarray, e: np.ndarray) -> np.ndarray:
        """Point 5: return the values that have these predictions and expected errors."""
        context = context_of(e)
        table = self.tables.number[context, p + 128 >> 6 & 3]
        check(np.all(table >= 0), "form", "a context that is not used")
        symbols = self.symbols.run(table, self.taken)
        self.taken += len(table)
        out = np.empty(len(p), np.int64)
        for i, (k, at) in enumerate(zip(symbols.tolist(), context, strict=True)):
            if k == Tables.ESCAPE:
                check(self.escapes.size, "escapes", "too few")
                out[i], self.escapes = self.escapes[0], self.escapes[1:]
                continue
            w = int(self.tables.shift[at])
            check(w <= len(self.low_bits), "low_bits", "too few")
            low = sum(self.low_bits.pop() << bit for bit in range(w))
            out[i] = min(max((int(p[i]) + 128 >> 8) + (k << w) + low - (1 << w >> 1), 0), self.high)
        return out

    def finish(self) -> None:
        check(self.escapes.size == 0, "escapes", "too many")
        check(len(self.low_bits) < 8 and not any(self.low_bits), "low_bits", "too many")
        self.symbols.finish()


def decode_neural(payload: Reader, dtype: np.dtype, box: tuple[int, ...], shared: tuple = ()) -> np.ndarray:
    """Mode 6: return the values of the box; `shared` are the bytes of the shared networks."""
    check(dtype.kind in "iuf" and dtype.itemsize <= 4, "mode", f"a network cannot code {dtype}")
    base, step = payload.number("u32", "base"), payload.number("u32", "step")  # section 13.1
    check(step >= 1, "step", "it is 0")
    high, gain = payload.number("u16", "high"), payload.number("u16", "gain")
    check(base + high * step < 256**dtype.itemsize, "high", f"{high} is beyond {dtype}")
    check(gain >= 1, "gain", "it is 0")
    check((place := payload.number("u8", "place")) <= 1, "place", f"{place} is reserved")
    if place:
        digest = bytes(payload.take(32, "digest"))
        found = [data for data in shared if hashlib.sha256(data).digest() == digest]
        check(found, "digest", "the configuration has no such network")
        network = Network(found[0])
    else:
        network = Network(payload.take(payload.number("u32", "network length"), "network"))
    offset = payload.number("u16", "offset")
    check(offset <= (0 if network.local else high), "offset", f"{offset} is too large")

    *first, slices, rows, columns = 1, 1, 1, *box  # section 13.4
    t, r = math.prod(first), network.radii
    a = r[0] + 1
    b = 1 + max([1 + a, *(r[k] * (1 + a) // k for k in range(1, len(r)))])
    n, steps = t * slices * rows * columns, columns + a * (rows - 1) + b * (slices - 1)
    side, above = max(3, *r), max(1, len(r) - 1)
    room = t * (slices + above) * (rows + 2 * side) * (columns + 2 * side)
    check(room <= 2**28, "radii", f"{room} values with those around")
    check(steps <= 8192 + n // 64, "steps", f"{steps} for {n} values")
    near_weights = read_column(payload, 14, "near_weights")
    error_weights = read_column(payload, 19, "error_weights")
    check(np.all(near_weights >= 0), "near_weights", "one is negative")
    check(np.all(error_weights >= 0), "error_weights", "one is negative")
    most = 4095 * (sum(near_weights[:-1].tolist()) + sum(error_weights.tolist())) + int(near_weights[-1])
    check(most < 2**24, "error_weights", "they are too large")
    streams = Streams(payload, n, high)

    # All that is known, with zeros around.
    v, error = (np.zeros((t, slices + above, rows + 2 * side, columns + 2 * side), np.int64) for _ in range(2))
    z, y = (index.reshape(-1) for index in np.indices((slices, rows)))
    for s in range(steps):
        x = s - a * y - b * z
        here = (x >= 0) & (x < columns)
        m, place_z = np.indices((t, np.count_nonzero(here))).reshape(2, -1)
        at = m, z[here][place_z] + above, y[here][place_z] + side, x[here][place_z] + side
        if not m.size:
            continue

        def around(array: np.ndarray, places: list, at: tuple = at) -> np.ndarray:
            """Return what an array is at neighbours of the values of this step."""
            return np.array([array[at[0], at[1] + dz, at[2] + dy, at[3] + dx] for dz, dy, dx in places])

        mean = around(v, CENTRE).sum(axis=0) >> 2  # 1.
        c = mean if network.local else np.full(len(mean), offset)
        p = network.evaluate(around(v, network.neighbours), c, gain, high)  # 2.
        d = np.minimum(np.abs(around(v, BEFORE + CENTRE) - mean), 4095)  # 3.
        e = near_weights[-1] + near_weights[:-1] @ d + error_weights @ around(error, ERRORS)  # 4.
        v[at] = found = streams.values(p, e)  # 5.
        error[at] = np.minimum(np.abs(256 * found - p) >> 6, 4095)  # 6.
    streams.finish()
    inside = v[:, above:, side : side + rows, side : side + columns]
    pattern = (base + inside * step).astype(f"<u{dtype.itemsize}")
    return from_order(pattern.reshape(-1), dtype).reshape(box)
