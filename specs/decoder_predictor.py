"""Section 12 of `inrstore-1.md`: mode 5, a predictor from values decoded before. `decoder.py` hands it the box.

The steps of section 12.2 are taken one by one; the values of a step are an array of two axes: y, and plane.
"""

import math
from typing import Any

import numpy as np
from decoder_parts import Lanes, Reader, check, check_rows, from_order, read_column, read_matrix

# Section 12.6: the neighbours (dy, dx) in a value's own plane. Each line is dy, and the first and last dx.
OWN = [(0, -4, -1), (-1, -4, 1), (-2, -3, 2), (-3, -2, 2)]
ERRORS = [(0, -3, -1), (-1, -2, 1), (-2, -1, 1)]
CENTRE = [(0, -1, -1), (-1, -1, 1)]
AROUND = [(-1, -1, 1), (0, -1, 1), (1, -1, 1)]


# Section 12.1. Header.
class Header:
    """The fields of the header, and what follows from them."""

    def __init__(self, payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> None:
        check(dtype.kind in "iuf" and dtype.itemsize <= 4, "mode", f"a predictor cannot code {dtype}")
        *first, slices, rows, columns = (1, 1, 1, *box)
        self.measurements, self.slices = math.prod(first), slices
        check((flags := payload.number("u8", "flags")) < 8, "flags", f"{flags} has reserved bits")
        self.exchanged, self.zeros, regions = (bool(flags >> bit & 1) for bit in range(3))
        check(self.measurements == 1 or not (self.zeros or regions), "flags", "zeros or regions need one measurement")
        self.shape = (columns, rows) if self.exchanged else (rows, columns)
        self.base, self.step = payload.number("u32", "base"), payload.number("u32", "step")
        check(self.step >= 1, "step", "it is 0")
        self.low, self.high = payload.number("i32", "low"), payload.number("i32", "high")
        check(-65535 <= self.low <= 0 <= self.base + self.low * self.step, "low", f"{self.low} is not allowed")
        check(0 <= self.high <= self.low + 65535, "high", f"{self.high} is not allowed")
        check(self.base + self.high * self.step < 256**dtype.itemsize, "high", f"{self.high} is beyond {dtype}")
        check((top := payload.number("u8", "top")) in (1, 2, 4, 8), "top", f"{top} is not 1, 2, 4 or 8")
        self.parts, sides = [], []
        for name, n in zip(("row_parts", "column_parts"), self.shape, strict=True):
            self.parts.append(number := payload.number("u16", name))
            check(number >= 1, name, "it is 0")
            sides.append(side := -(-n // number))
            check((number - 1) * side < n, name, f"{number} are too many for {n}")
        self.h, self.l = sides
        room, most = (self.h + 8) * (self.l + 8), 3 * 2**19
        check(room <= most, "column_parts", f"planes of {self.h} x {self.l}")
        self.regions: list[int] | None = None
        if regions:
            self.regions = [payload.number("u16", "region_rows"), payload.number("u16", "region_columns")]
            for side, n in zip(self.regions, sides, strict=True):
                check(min(n, 16) <= side <= n, "region_columns", f"regions of {self.regions}")
        t = self.measurements
        check(t <= 4096, "order", f"{t} measurements")
        order = payload.array("<u2", t, "order").tolist() if t > 1 else [0]
        check(sorted(order) == list(range(t)), "order", "this is no permutation")
        self.order = order

        # Section 12.2: groups are (first, end) of the decoded order, stages are (d, slices).
        self.groups, size = [(0, 1)], 1
        while (start := self.groups[-1][1]) < t:
            self.groups.append((start, min(start + size, t)))
            size = min(2 * size, 16)
        self.stages = [(0, range(0, slices, top))]
        while top > 1:
            top //= 2
            if top < slices:
                self.stages.append((top, range(top, slices, 2 * top)))
        area, tiles = self.h * self.l, math.prod(self.parts)
        self.per_block, self.n = max(1, most // room), t * slices * tiles * area
        planes = [(end - start) * len(zs) * tiles for start, end in self.groups for _, zs in self.stages]
        steps = sum(-(-n // self.per_block) for n in planes) * (self.l + 2 * (self.h - 1))
        check(steps <= 8192 + self.n // 64, "column_parts", f"{steps} steps")


# Section 12.4. Groups.
class Group:
    """How the base of each measurement of a group follows from earlier ones, and the group's stages."""

    def __init__(self, payload: Reader, head: Header, start: int, end: int) -> None:
        self.start, self.end, used = start, end, min(start, 256)
        if start:
            check((shift := payload.number("u8", "group_shift")) <= 14, "group_shift", f"{shift} is above 14")
            self.shift = shift
            self.weights = read_matrix(payload, end - start, used + 1, "group_weights")
            check_rows(self.weights, 65535, 2**53, "group_weights")
        self.stages = [Stage(payload, head, end - start, start > 0, d, slices) for d, slices in head.stages]

    def bases(self, head: Header, v: np.ndarray) -> np.ndarray:
        """Return P of every measurement of the group, everywhere."""
        p = np.empty((self.end - self.start, *v.shape[1:]), np.int32)
        for row, weights in enumerate(self.weights):
            total = np.full(v.shape[1:], weights[-1])
            for i, weight in enumerate(weights[:-1]):
                total += weight * v[i]
            p[row] = np.clip(total >> self.shift, head.low, head.high)
        return p


# Section 12.5. Stages.
class Stage:
    """The weights of a stage."""

    def __init__(self, payload: Reader, head: Header, group: int, later: bool, d: int, slices: range) -> None:
        self.d, self.slices, self.own = d, slices, offsets(OWN)
        self.j = len(self.own) + (18 if d else 0)
        k = self.j + (9 if later else 0)
        m = 10 + (2 if d else 0) + (1 if later else 0)
        if head.zeros:
            self.flag_weights = read_column(payload, self.j + 1, "flag_weights")
            check_rows(self.flag_weights[None], 1, 2**24, "flag_weights")
        self.fraction, self.sets = payload.number("u8", "fraction"), payload.number("u8", "sets")
        check(4 <= self.fraction <= 12, "fraction", f"{self.fraction} is not in 4..12")
        check(1 <= self.sets <= 16, "sets", f"{self.sets} is not in 1..16")
        self.clip = payload.number("u16", "clip")
        check(self.clip >= 1, "clip", "it is 0")
        self.weights = read_matrix(payload, self.sets, k + 1, "weights")
        check_rows(self.weights, self.clip, 2**24, "weights")
        self.region = np.zeros((head.h, head.l), np.int64)
        self.regional = self.weights[None]
        if head.regions and (shift := payload.number("u8", "region_shift")) != 255:
            check(shift <= 12, "region_shift", f"{shift} is above 12")
            (u, w), across = head.regions, -(-head.l // head.regions[1])
            self.region = np.arange(head.h)[:, None] // u * across + np.arange(head.l) // w
            number = int(self.region[-1, -1]) + 1
            planes = group * len(slices) * math.prod(head.parts)
            check(2048 * number <= planes * self.region.size, "region_shift", f"{number} regions are too many")
            found = read_matrix(payload, number * self.sets, k + 1, "region_weights")
            check(np.all(np.abs(found) < 2**25 >> shift), "region_weights", "a difference is too large")
            self.regional = self.weights + (found << shift).reshape(number, self.sets, k + 1)
            check_rows(self.regional.reshape(-1, k + 1), self.clip, 2**24, "region_weights")
        steps = read_column(payload, self.sets - 1, "thresholds")
        check(np.all(steps[:1] >= 0) and np.all(steps[1:] >= 1), "thresholds", "they do not ascend")
        check(steps.sum() < 2**24, "thresholds", "the last is too large")
        self.thresholds = np.cumsum(steps)
        self.activity_weights = read_column(payload, k + 1, "activity_weights")
        check(np.all(self.activity_weights >= 0), "activity_weights", "one is negative")
        check_rows(self.activity_weights[None], self.clip, 2**24, "activity_weights")
        self.activity_scale = payload.number("u16", "activity_scale")
        check(self.activity_scale <= 1023, "activity_scale", f"{self.activity_scale} is above 1023")
        self.error_weights = read_column(payload, m, "error_weights")
        check(np.all(self.error_weights >= 0), "error_weights", "one is negative")
        check(4095 * int(self.error_weights.sum()) < 2**24, "error_weights", "they are too large")


def offsets(lines: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the (dy, dx) of a column of the table of neighbours."""
    return [(dy, dx) for dy, first, last in lines for dx in range(first, last + 1)]


# Section 12.7. Tables.
class Tables:
    """The shift of each context, and the tables of symbols; the escape is `ESCAPE`."""

    ESCAPE = 1000

    def __init__(self, payload: Reader) -> None:
        self.shift = np.zeros(64, np.int64)
        self.number = np.full((64, 4), -1)  # of the table of a context and phase
        self.tables: list[tuple[np.ndarray, list[int]]] = []
        for context in range(64):
            if (form := payload.number("u8", "form")) == 255:
                continue
            check((tail := form >> 5) <= 4, "form", f"{form} has reserved bits")
            self.shift[context], phased = form & 15, form >> 4 & 1
            check((scale := payload.number("u16", "scale")) >= 1, "scale", "it is 0")
            peak = payload.number("u16", "peak")
            check(1 <= peak <= 500 and peak << (form & 15) <= 65535, "peak", f"{peak} is not allowed")
            escape = payload.number("u16", "escape")
            check(1 <= escape <= 2000, "escape", f"{escape} is not in 1..2000")
            for phase in range(4):
                if phased or phase == 0:
                    symbols = np.array([*range(-peak, peak + 1), self.ESCAPE])
                    self.tables.append((symbols, counts_of(scale, peak, escape, phase if phased else None, tail)))
                self.number[context, phase] = len(self.tables) - 1


def counts_of(scale: int, peak: int, escape: int, phase: int | None, tail: int) -> list[int]:
    """Return the counts of the symbols -peak..peak and of the escape."""
    q = max(1, (1 if phase is None else 576) * scale * scale * (2 ** (tail + 1) - 1) // 4096)
    w = []
    for k in range(-peak, peak + 1):
        points = [k] if phase is None else [24 * k - 6 * phase + 9 + o for o in (-8, 0, 8)]
        w.append(sum(weight_of(q, point * point, tail) for point in points))
    spare, total = 16384 - (2 * peak + 1) - escape, max(1, sum(w))
    f = [1 + x * spare // total for x in w]
    f[peak] += 16384 - escape - sum(f)
    return [*f, escape]


def weight_of(q: int, distance: int, tail: int) -> int:
    """Return the weight of a point; 2^24 is one."""
    root = 2**24 - -(-(2**24) * distance // (q + distance))
    for _ in range(tail):
        root = root * root >> 24
    return root


# Section 12.8. Streams.
class Streams:
    """Symbols, flags, escapes and low bits."""

    def __init__(self, payload: Reader, head: Header) -> None:
        self.tables = Tables(payload)
        check((lanes := payload.number("u8", "lanes")) <= 12, "lanes", f"{lanes} is above 12")
        check(head.n <= 2 ** (lanes + 15), "lanes", f"2^{lanes} for {head.n} values")
        flags = []
        if head.zeros:
            counts = payload.array("<u2", 32, "flag_counts").tolist()
            check(min(counts) >= 1 and max(counts) <= 16383, "flag_counts", "one is not in 1..16383")
            flags = [([1, 0], [f, 16384 - f]) for f in counts]
        number = payload.number("u32", "escapes")
        check(number <= head.n, "escapes", f"{number} of {head.n} values")
        self.escapes = payload.array("<u2", number, "escapes").astype(np.int64)
        low = payload.take(payload.number("u32", "low_bits"), "low_bits")
        self.low_bits = np.unpackbits(np.frombuffer(low, np.uint8), bitorder="little")
        self.flags = None
        if head.zeros:
            self.flags = Lanes(Reader(payload.take(payload.number("u32", "flags length"), "flags")), 2**lanes, flags)
        self.symbols = Lanes(payload, 2**lanes, self.tables.tables)
        self.taken = {"symbols": 0, "flags": 0}

    def next_of(self, name: str, tables: np.ndarray) -> np.ndarray:
        """Return the next symbols of a stream."""
        found = getattr(self, name).run(tables, self.taken[name])
        self.taken[name] += len(tables)
        return found.astype(np.int64)

    def next_bits(self, widths: np.ndarray) -> np.ndarray:
        """Return the next numbers of these widths among the low bits."""
        total = int(widths.sum())
        check(total <= self.low_bits.size, "low_bits", "too few")
        mine, self.low_bits = self.low_bits[:total], self.low_bits[total:]
        place = np.arange(total) - np.repeat(np.cumsum(widths) - widths, widths)
        numbers = np.zeros(len(widths), np.int64)
        np.add.at(numbers, np.repeat(np.arange(len(widths)), widths), mine.astype(np.int64) << place)
        return numbers

    def next_escapes(self, number: int) -> np.ndarray:
        check(number <= self.escapes.size, "escapes", "too few")
        mine, self.escapes = self.escapes[:number], self.escapes[number:]
        return mine

    def finish(self) -> None:
        check(self.escapes.size == 0, "escapes", "too many")
        check(self.low_bits.size < 8 and not self.low_bits.any(), "low_bits", "too many")
        for stream in (self.flags, self.symbols):
            if stream is not None:
                stream.finish()


# Section 12.6. A value.
class Decoder:
    """Decodes the steps. Arrays of values have the axes measurement (as decoded), slice, part, y, x.

    All but `v` have four rows and columns of zeros on each side.
    """

    def __init__(self, head: Header, streams: Streams) -> None:
        self.head, self.streams = head, streams
        size = (head.measurements, head.slices, math.prod(head.parts), head.h)
        self.v = np.zeros((*size, head.l), np.int32)
        self.difference, self.error = (np.zeros((*size[:3], head.h + 8, head.l + 8), np.int32) for _ in range(2))
        self.flag = self.difference.astype(bool) if head.zeros else None

    def decode_group(self, group: Group) -> None:
        """Decode all stages of a group, each block by block."""
        self.p = np.pad(group.bases(self.head, self.v), [(0, 0)] * 3 + [(4, 4)] * 2) if group.start else None
        parts = range(self.v.shape[2])
        for stage in group.stages:
            planes = [(m, z, part) for m in range(group.start, group.end) for z in stage.slices for part in parts]
            for first in range(0, len(planes), self.head.per_block):
                block = np.array(planes[first : first + self.head.per_block]).T
                for s in range(self.head.l + 2 * (self.head.h - 1)):
                    y = np.arange(max(0, -(-(s - self.head.l + 1) // 2)), min(self.head.h - 1, s // 2) + 1)
                    if y.size:
                        self.decode_step(group, stage, block, y[:, None], s - 2 * y[:, None])

    def decode_step(self, group: Group, stage: Stage, block: np.ndarray, y: Any, x: Any) -> None:
        """Decode the values at the positions (y, x), one below the other, of all planes of a block."""
        head, later, j = self.head, group.start > 0, stage.j
        m, z, part = block
        sides = [z - stage.d, np.where(z + stage.d < head.slices, z + stage.d, z - stage.d)] if stage.d else []

        def near(array: np.ndarray, m: np.ndarray, z: np.ndarray, places: list) -> list:
            """What an array is at neighbours in a slice."""
            return [array[m, z, part, y + dy + 4, x + dx + 4] for dy, dx in places]

        def listed(array: np.ndarray, places: list, around: list) -> list:
            """What an array is at neighbours in the plane, in the slice below and in that above."""
            return near(array, m, z, places) + [value for side in sides for value in near(array, m, side, around)]

        here, around = [(0, 0)], offsets(AROUND)
        r = np.array(listed(self.difference, stage.own, around), np.int64)  # 1.
        flags = np.array(listed(self.flag, stage.own, around)) if head.zeros else None
        base = np.zeros(r.shape[1:], np.int64)
        if later:  # 2.
            c = base = near(self.p, m - group.start, z, here)[0].astype(np.int64)
            r = np.concatenate([r, np.array(near(self.p, m - group.start, z, around), np.int64) - c])
            r[j + 4] = c >> 4
        else:
            near_by = np.array(listed(self.difference, offsets(CENTRE), here), np.int64)
            counted = np.array(listed(self.flag, offsets(CENTRE), here)) if head.zeros else np.ones(near_by.shape, bool)
            c = (near_by * counted).sum(axis=0) // np.maximum(counted.sum(axis=0), 1)
            r -= c
            if head.zeros:
                r *= flags
        r = np.concatenate([np.clip(r, -stage.clip, stage.clip), np.ones((1, *c.shape), np.int64)])  # 3.
        coded = np.ones(c.shape, bool)
        if head.zeros:  # 4.
            u = np.tensordot(stage.flag_weights[:-1], flags.astype(np.int64), 1) + stage.flag_weights[-1]
            classes = np.sum([154 * i < u for i in range(-15, 16)], axis=0)
            coded = self.streams.next_of("flags", classes.ravel()).reshape(c.shape) == 1
        t = np.tensordot(stage.activity_weights, np.abs(r), 1)  # 5.
        q = np.sum(stage.thresholds[:, None, None] < t, axis=0)
        p = (c << stage.fraction) + np.einsum("iab,abi->ab", r, stage.regional[stage.region[y, x], q])
        errors = np.array(listed(self.error, offsets(ERRORS), here), np.int64)  # 6.
        if later:
            earlier = self.error[: group.start, z, part, y + 4, x + 4].sum(axis=0, dtype=np.int64)
            errors = np.concatenate([errors, [earlier // group.start]])
        e = (np.minimum(t, 2**20) * stage.activity_scale >> 6) + np.tensordot(stage.error_weights, errors, 1)

        v = np.zeros(c.shape, np.int64)
        v[coded] = self.decode_values(stage.fraction, p[coded], context_of(e[coded]))
        check(not head.zeros or np.all(v[coded] != 0), "symbols", "a flag says that a zero is none")
        self.v[m, z, part, y, x] = v  # 9.
        at = m, z, part, y + 4, x + 4
        self.difference[at] = v - base
        error = np.abs((v << stage.fraction) - p) >> (stage.fraction - 2)
        self.error[at] = np.where(coded, np.minimum(error, 4095), 0)
        if head.zeros:
            self.flag[at] = coded

    def decode_values(self, fraction: int, p: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Steps 7 and 8: return the values that have these predictions and contexts."""
        head, streams = self.head, self.streams
        middle = p + (1 << (fraction - 1))
        table = streams.tables.number[context, middle >> (fraction - 2) & 3]
        check(np.all(table >= 0), "form", "a context that is not used")
        prediction = np.clip(middle >> fraction, head.low, head.high)
        k = streams.next_of("symbols", table)
        escaped = k == Tables.ESCAPE
        w = np.where(escaped, 0, streams.tables.shift[context])
        b = streams.next_bits(w)
        v = np.clip(prediction + (k << w) + b - (1 << w >> 1), head.low, head.high)
        v[escaped] = head.low + streams.next_escapes(np.count_nonzero(escaped))
        check(np.all(v <= head.high), "escapes", "one is too large")
        return v


def context_of(e: np.ndarray) -> np.ndarray:
    """Step 6: return the contexts of expected errors."""
    j = np.frexp(np.clip(e, 1, 2**24 - 1).astype(np.float64))[1].astype(np.int64) - 1  # floor(log2 e), exactly
    inner = 4 * (j - 5) + ((e >> np.maximum(j - 2, 0)) & 3)
    return np.where(e < 32, 0, np.where(e >= 2**24, 63, np.minimum(63, inner)))


def decode_predictor(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 5: return the values of the box."""
    head = Header(payload, dtype, box)
    groups = [Group(payload, head, *group) for group in head.groups]
    decoder = Decoder(head, streams := Streams(payload, head))
    for group in groups:
        decoder.decode_group(group)
    streams.finish()
    (a, b), (rows, columns) = head.parts, head.shape
    whole = decoder.v.reshape(head.measurements, head.slices, a, b, head.h, head.l).swapaxes(3, 4)
    whole = whole.reshape(head.measurements, head.slices, a * head.h, b * head.l)[:, :, :rows, :columns]
    pattern = np.empty(whole.shape, f"<u{dtype.itemsize}")
    pattern[head.order] = head.base + whole.astype(np.int64) * head.step
    if head.exchanged:
        pattern = pattern.swapaxes(2, 3)
    return from_order(np.ascontiguousarray(pattern).reshape(-1), dtype).reshape(box)
