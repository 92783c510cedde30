"""Section 14 of `inrstore-1.md`: mode 4, a transform. `decoder.py` hands it the box.

All sums are made of int64 or of Python's own integers, so that nothing is ever rounded; nothing here is fast.
"""

import hashlib
import itertools
import math
from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
from decoder_inloop import Correction
from decoder_parts import Reader, check, check_outputs, read_matrix
from decoder_predictor import context_of
from decoder_wavelet import unrounded, volumes_of

Key = tuple[int, ...]


# Section 14.2. Bands.
class Band(NamedTuple):
    level: int
    key: Key
    shape: tuple[int, ...]


def length_after(length: int, halvings: int) -> int:
    for _ in range(halvings):
        length = -(-length // 2)
    return length


def bands_of(lengths: Key, levels: Key) -> list[Band]:
    """Return all bands in their order."""
    top = max(levels)
    bands = [Band(max(top - 1, 0), (0, 0, 0), tuple(map(length_after, lengths, levels)))]
    for j in reversed(range(top)):
        m = [length_after(n, min(j, count)) for n, count in zip(lengths, levels, strict=True)]
        for key in itertools.product((0, 1), repeat=3):
            if any(key) and all(j < count for digit, count in zip(key, levels, strict=True) if digit):
                shape = [
                    n if j >= count else n // 2 if digit else -(-n // 2)
                    for n, count, digit in zip(m, levels, key, strict=True)
                ]
                bands.append(Band(j, key, tuple(shape)))
    return bands


# Section 14.4. Usual weights.
USUAL_WEIGHTS = np.array([
    (0, 0, 0, 0, 0, 0, 0, 0, 51017),
    (0, 136, 42, 0, 0, 0, 0, 0, 580),
    (0, 72, 33, 0, 0, 0, 0, 0, 34),
    (0, 26, 18, 0, 0, 0, 0, 0, 530),
    (0, 0, 0, 0, 3, 5, 13, 7, 17),
    (63, 54, 26, 0, 1, 1, 6, 2, 1),
    (34, 50, 10, 0, 0, 0, 5, 1, 1),
    (27, 37, 4, 0, 0, 0, 1, 0, 1),
    (0, 0, 0, 0, 2, 0, 16, 2, 1),
    (53, 22, 21, 0, 0, 0, 9, 0, 1),
    (35, 45, 6, 0, 0, 0, 7, 0, 1),
    (32, 33, 3, 0, 0, 0, 3, 0, 1),
    (0, 0, 0, 0, 0, 0, 8, 1, 1),
    (40, 0, 15, 0, 0, 0, 6, 0, 1),
    (32, 0, 5, 0, 0, 0, 5, 0, 1),
    (28, 0, 1, 0, 0, 0, 4, 0, 1),
])  # fmt: skip


# Section 14.1. Header.
class Header:
    """The fields of the header, and what follows from them."""

    def __init__(self, payload: Reader, dtype: np.dtype, box: tuple[int, ...], shared: tuple = ()) -> None:
        check(dtype.kind != "b", "mode", "a transform cannot code bool")
        check((flags := payload.number("u8", "flags")) in (0, 1, 2, 4, 5), "flags", f"{flags} is not known")
        check(math.prod(box) <= 1 << 26, "channel_axis", f"a box of {math.prod(box)} values")
        if flags == 2:  # section 14.9
            name = bytes(payload.take(8, "digest"))
            found = [data for data in shared if hashlib.sha256(data).digest()[:8] == name]
            check(len(found) == 1, "digest", f"{len(found)} shared parameters have this name")
            parameter = Reader(found[0])
            check(parameter.number("u8", "kind") == 84, "kind", "this is no shared header")
            t = parameter.number("u16", "measurements")
            check((flags := parameter.number("u8", "flags")) in (0, 1, 4, 5), "flags", f"{flags} is not known")
            self.read_common(parameter, flags, box, dtype)
            check(t == self.t, "measurements", f"{t} for a box of {self.t}")
            check(len(parameter.rest) == 0, "shared parameter", "bytes are left over")
        else:
            self.read_common(payload, flags, box, dtype)
        self.active = read_matrix(payload, len(self.bands), 1, "active")[:, 0].tolist()
        check(all(0 <= a <= self.k for a in self.active), "active", f"one is not in 0..{self.k}")
        count = sum(a * math.prod(band.shape) for a, band in zip(self.active, self.bands, strict=True))
        self.lanes = payload.number("u16", "lanes")
        check(1 <= self.lanes <= 4096 and count <= self.lanes << 15, "lanes", f"{self.lanes} for {count}")

    def read_common(self, payload: Reader, flags: int, box: tuple[int, ...], dtype: np.dtype) -> None:
        """Read the common fields for a box."""
        self.trellis = flags >= 4
        self.axis = payload.number("u8", "channel_axis")
        check(self.axis in (*range(len(box)), 255), "channel_axis", f"{self.axis} is no axis")
        self.t = t = 1 if self.axis == 255 else box[self.axis]
        check(t <= 4096, "channel_axis", f"{t} measurements")
        *first, slices, rows, columns = (1, 1, 1, *(n for a, n in enumerate(box) if a != self.axis))
        self.lengths = math.prod(first) * slices, rows, columns
        self.levels = tuple(payload.array("u1", 3, "levels").tolist())
        for n, count in zip(self.lengths, self.levels, strict=True):
            check(count <= 8, "levels", f"{count} is above 8")
            check(count == 0 or length_after(n, count - 1) >= 2, "levels", f"{n} cannot be halved {count} times")
        self.k = payload.number("u16", "components")
        check(1 <= self.k <= min(t, 1024, math.prod(self.lengths)), "components", f"{self.k} are not allowed")
        self.biases = payload.number("i8", "biases"), payload.number("i8", "biases")
        check(1 <= (shift := payload.number("u8", "shift")) <= 45, "shift", f"{shift} is not in 1..45")
        check((offset_shift := payload.number("u8", "offset_shift")) <= 45, "offset_shift", f"{offset_shift}")
        self.exponent = payload.number("i8", "exponent")
        self.low, self.high = payload.number("i32", "low"), payload.number("i32", "high")
        check_outputs(dtype, self.exponent, self.low, self.high)
        self.gains, offsets = read_matrix(payload, t, 2, "gains").T.tolist()
        check(min(self.gains) >= 1 and max(self.gains) <= 65535, "gains", "one is not in 1..65535")
        self.offsets = [o << offset_shift for o in offsets]
        self.shift = shift
        self.column_shifts, self.basis = [0], np.ones((1, 1), np.int64)
        if t > 1:
            self.column_shifts = payload.array("u1", self.k, "column_shifts").tolist()
            check(max(self.column_shifts) <= 15, "column_shifts", "one is above 15")
            self.basis = read_matrix(payload, t, self.k, "basis")
        self.bands = bands_of(self.lengths, self.levels)
        kinds = 1 + sum(count > 0 for count in self.levels)
        self.weights = (read_matrix(payload, 4 * kinds, 9, "weights") + USUAL_WEIGHTS[: 4 * kinds]).tolist()
        for w in self.weights:
            check(min(w) >= 0, "weights", "one is negative")
            reach = sum(n * x for n, x in zip((6, 6, 12, 8, 1, 6, 7, 42), w[:8], strict=True))
            check(4080 * reach + w[8] < 2**24, "weights", "they are too large")
        self.correction = Correction(payload, self.k) if flags & 1 else None


# Section 14.5. Counts.
def first_counts() -> tuple[list[list[int]], list[list[int]]]:
    """Return F and G as they begin."""
    f, g = [], []
    for c in range(64):
        u = (17867, 21247, 25268, 30048)[c % 4] << c // 4
        ones = 1536 * u // (u + 2**21)
        f.append([1536 - ones, max(1, ones)])
        v = u >> low_bits_of(c)
        r, w = (v << 16) // (v + 2**21), [2**16]
        for _ in range(17):
            w.append(w[-1] * r >> 16)
        g.append([2 + 4096 * x // sum(w) for x in w])
    second = [min(2 * ones, 1488) for _, ones in f]
    return f + [[1536 - ones, ones] for ones in second], g


def low_bits_of(context: int) -> int:
    return max(0, context // 4 - 10)


def starts_of(g: list[int]) -> list[int]:
    """Return the starts of the 18 sizes, and 2^12."""
    counts = [1 + 4078 * x // sum(g) for x in g]
    counts[g.index(max(g))] += 4096 - sum(counts)
    return [0, *itertools.accumulate(counts)]


def forget(counts: list[int]) -> None:
    while sum(counts) > 2**17:
        counts[:] = [(x + 1) // 2 for x in counts]


# Section 14.6. A pass.
class Source:
    """The bits, the signs, the stream and its counts."""

    def __init__(self, payload: Reader, lanes: int, trellis: bool) -> None:
        self.trellis, self.state = trellis, 0
        self.bits = self.bits_of(payload, "bits")
        self.signs = self.bits_of(payload, "signs")
        self.states = payload.array("<u4", lanes, "states").tolist()
        check(min(self.states) >= 2**16, "states", "a state is below 2^16")
        check(len(payload.rest) % 2 == 0, "words", "an odd byte is left over")
        self.words = payload.array("<u2", len(payload.rest) // 2, "words").tolist()[::-1]
        self.symbols = self.taken = 0
        self.f, self.g = first_counts()

    @staticmethod
    def bits_of(payload: Reader, field: str) -> np.ndarray:
        data = payload.take(payload.number("u32", field), field)
        return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")

    def number(self, width: int) -> int:
        """Return the next number of so many bits."""
        found = self.bits[self.taken : self.taken + width].tolist()
        check(len(found) == width, "bits", "too few")
        self.taken += width
        return sum(bit << i for i, bit in enumerate(found))

    def zeros(self) -> int:
        """Return how many bits are 0 before the next that is 1, which is taken, too."""
        found = 0
        while not self.number(1):
            found += 1
            check(found <= 21, "bits", "more than 21 zeros")
        return found

    def symbol(self, starts: list[int]) -> int:
        """Return the next symbol; `starts` are those of all symbols, and their total, 2^16 or 2^12."""
        lane, self.symbols = self.symbols % len(self.states), self.symbols + 1
        share, slot = divmod(self.states[lane], starts[-1])
        s = bisect_right(starts, slot) - 1
        x = (starts[s + 1] - starts[s]) * share + slot - starts[s]
        if x < 2**16:
            check(self.words, "words", "too few")
            x = x << 16 | self.words.pop()
        self.states[lane] = x
        return s

    def flag(self, context: int) -> tuple[int, bool]:
        """Return a pair of F, and the flag that is decoded with it."""
        pair = context + 64 * (self.state >= 4)
        zeros, ones = self.f[pair]
        first = min(max((ones << 16) // (zeros + ones), 1), 65535)
        flag = self.symbol([0, first, 2**16]) == 0  # flag 1 comes first
        if self.trellis:
            x, p, y = self.state >> 2, self.state >> 1 & 1, self.state & 1
            self.state = 4 * (x ^ p) + 2 * (y ^ flag) + x
        return pair, flag

    def magnitudes(self, contexts: list[int]) -> tuple[list[int], list[bool]]:
        """Return |q| of all values of a pass, and which are of the second quantiser."""
        pairs = [self.flag(c) for c in contexts]  # 1.
        flags = [flag for _, flag in pairs]
        live = [i for i, flag in enumerate(flags) if flag]
        starts = {c: starts_of(self.g[c]) for c in {contexts[i] for i in live}}
        sizes = [self.symbol(starts[contexts[i]]) for i in live]  # 2.
        whole, escaped = list(sizes), [i for i, size in enumerate(sizes) if size == 17]
        zeros = [self.zeros() for _ in escaped]  # 3.
        for i, j in zip(escaped, zeros, strict=True):  # 4.
            whole[i] += 2 ** (j + 2) - 4 + self.number(j + 2)
        out = [0] * len(contexts)
        for i, size in zip(live, whole, strict=True):  # 5.
            low = low_bits_of(contexts[i])
            out[i] = (size << low) + self.number(low) + 1
            check(out[i] <= 2**24, "bits", "a coefficient is too large")
        for pair, flag in pairs:  # section 14.5
            self.f[pair][flag] += 64
        for i, size in zip(live, sizes, strict=True):
            self.g[contexts[i]][size] += 64
        for counts in self.f + self.g:
            forget(counts)
        return out, [pair >= 64 for pair, _ in pairs]

    def finish(self) -> np.ndarray:
        """Check that nothing is left over; return the bits of all signs."""
        check(len(self.bits) - self.taken < 8 and not self.bits[self.taken :].any(), "bits", "too many")
        check(not self.words, "words", "too many")
        check(all(x >> 16 == 1 for x in self.states), "states", "a state does not end in 2^16 .. 2^17 - 1")
        first = [x >> i & 1 for x in self.states for i in range(16)]
        return np.array([*first, *self.signs.tolist()])


# Sections 14.3 and 14.4. Passes and expected magnitudes.
PASSES = [[(0, 0, 0), (1, 1, 1)], [(1, 1, 0), (0, 0, 1)], [(1, 0, 1), (0, 1, 0)], [(0, 1, 1), (1, 0, 0)]]
AROUND = [o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)]
FACES = [o for o in AROUND if sum(map(abs, o)) == 1]


def around(array: np.ndarray, offsets: list[Key]) -> list[np.ndarray]:
    """Return what an array (component, z, y, x) is at each of these neighbours; it is 0 beyond its edges."""
    padded = np.pad(array, [(0, 0), (1, 1), (1, 1), (1, 1)])
    places = ([slice(1 + o, 1 + o + n) for o, n in zip(p, array.shape[1:], strict=True)] for p in offsets)
    return [padded[:, *place] for place in places]


def resized(array: np.ndarray, count: int, index: list[np.ndarray]) -> np.ndarray:
    """Return an array at these indices of each axis, or at its last place; 0 for components that it has not."""
    out = np.zeros((count, *map(len, index)), np.int64)
    mine = min(count, len(array))
    places = [np.minimum(i, n - 1) for i, n in zip(index, array.shape[1:], strict=True)]
    out[:mine] = array[np.ix_(range(mine), *places)]
    return out


def decode_band(source: Source, head: Header, band: Band, count: int, done: dict) -> np.ndarray:
    """Return |q| of a band, in half steps with a trellis; `done` has m of the bands before."""
    m = np.zeros((count, *band.shape), np.int64)
    magnitude, second, p, q = m.copy(), m.copy(), m.copy(), m.copy()
    if any(band.key):
        index = [np.arange(n) for n in band.shape]
        parent = done.get((band.level + 1, band.key))
        if parent is not None:
            half = [i // 2 if n > band.level + 1 else i for i, n in zip(index, head.levels, strict=True)]
            p = resized(parent, count, half)
        for (level, key), other in done.items():
            if level == band.level and any(key):
                q = q + resized(other, count, index)
    still = [p, sum(around(p, FACES)), q, sum(around(q, FACES))]
    for number, parities in enumerate(PASSES):
        f = [np.zeros_like(m) for _ in range(4)]
        for o, there in zip(AROUND, around(m, AROUND), strict=True):
            distance = sum(map(abs, o))
            along_high = distance == 1 and any(a and b for a, b in zip(o, band.key, strict=True))
            f[0 if along_high else distance] += there
        w = head.weights[4 * sum(band.key) + number]
        expected = w[8] + 16 * sum(a * b for a, b in zip(w[:8], f + still, strict=True))
        parts = [(slice(None), *(slice(digit, None, 2) for digit in parity)) for parity in parities]
        contexts = context_of(np.concatenate([expected[part].ravel() for part in parts]))
        found = np.array(source.magnitudes(contexts.tolist()), np.int64)
        for part in parts:
            size = magnitude[part].size
            magnitude[part], second[part] = found[:, :size].reshape(2, *magnitude[part].shape)
            found = found[:, size:]
        m = np.minimum(magnitude, 255)
    done[band.level, band.key] = m
    return np.where(magnitude, 2 * magnitude - second, 0) if head.trellis else magnitude


# Section 14.8. Outputs.
def outputs_of(head: Header, u: np.ndarray) -> np.ndarray:
    """Return n: measurements, positions."""
    u = u.reshape(head.k, -1)
    most = np.abs(u).max(axis=1).tolist()
    out = np.empty((head.t, u.shape[1]), np.int64)
    half = 1 << (head.shift - 1)
    for t, row in enumerate(head.basis.tolist()):
        factors = [b << shift for b, shift in zip(row, head.column_shifts, strict=True)]
        reach = sum(abs(b) * m for b, m in zip(factors, most, strict=True))
        check(reach * head.gains[t] + abs(head.offsets[t]) + half < 2**53, "outputs", "sums of 2^53 or more")
        s = sum(b * u[k] for k, b in enumerate(factors) if most[k])  # a factor of 2^53 or more only meets zeros
        out[t] = np.clip((s * head.gains[t] + head.offsets[t] + half) >> head.shift, head.low, head.high)
    return out


def decode_transform(payload: Reader, dtype: np.dtype, box: tuple[int, ...], shared: tuple = ()) -> np.ndarray:
    """Mode 4: return the values of the box."""
    head = Header(payload, dtype, box, shared)
    source = Source(payload, head.lanes, head.trellis)
    done: dict[tuple[int, Key], np.ndarray] = {}
    found = [decode_band(source, head, band, n, done) for band, n in zip(head.bands, head.active, strict=True)]
    signs = source.finish()
    values, number = {}, 0
    for band, q in zip(head.bands, found, strict=True):
        live = np.flatnonzero(q)
        mine, number = signs[number : number + live.size], number + live.size
        check(len(mine) == live.size, "signs", "too few")
        q.reshape(-1)[live] *= 1 - 2 * mine
        whole: Any = np.zeros((head.k, *band.shape), np.int64)
        whole[: len(q)] = unrounded(head, band, q)
        values[band.level, band.key] = whole
    check(len(source.signs) == 8 * max(0, -(-(number - 16 * head.lanes) // 8)), "signs", "too many")
    check(not signs[number:].any(), "signs", "a bit after the last is not 0")
    u = volumes_of(head, values)
    if head.correction is not None:
        head.correction.correct(u)
    n = outputs_of(head, u)
    if dtype.kind == "f":  # exact in binary64, then rounded once
        out = np.ldexp(n.astype(np.float64), head.exponent).astype(dtype)
    else:  # modulo 2^64, which is harmless: the result is known to lie in the type
        out = (n.view(np.uint64) << np.uint64(head.exponent)).astype(dtype)
    if head.axis == 255:
        return out.reshape(box)
    space = [length for axis, length in enumerate(box) if axis != head.axis]
    return np.moveaxis(out.reshape(head.t, *space), 0, head.axis).copy()
