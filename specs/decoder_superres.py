"""Section 17 of `inrstore-1.md`: mode 8, a coarse image and a network that refines it.

Everything is made of int64 numbers; maps have the axes (maps, slices, rows, columns). Nothing here is fast.
"""

import hashlib
import itertools
import math

import numpy as np
from decoder_network import Network, short, units
from decoder_parts import Lanes, Reader, check, check_outputs, counts_of


def clamp(x: np.ndarray, most: int = 1023) -> np.ndarray:
    return np.clip(x, -most, most)


# Section 17.2. Refiner. A layer: outputs, inputs, whether it is wide, whether it is relu, grid (None is the fine one).
def dense_layers(sizes: list[int], doublings: int) -> list[tuple]:
    blocks, layers, growth, first, bottleneck = sizes
    check(min(sizes) >= 1, "blocks to bottleneck", "one is 0")
    check(first + blocks * layers * growth <= 2048, "growth", "too many maps")
    out = [(first, 1, True, True, 0)]
    for d in range(blocks):
        out.append((growth, first + d * layers * growth, True, True, 0))
        out += [(growth, j * growth, True, True, 0) for j in range(1, layers)]
    out.append((bottleneck, first + blocks * layers * growth, False, True, 0))
    out += [(bottleneck, bottleneck, True, True, j) for j in range(1, doublings + 1)]
    return [*out, (1, bottleneck, True, False, doublings)]


def operator_layers(sizes: list[int]) -> list[tuple]:
    layers, channels, width, heads, attentions = sizes
    check(min(sizes[:4]) >= 1, "layers to heads", "one is 0")
    check(width % heads == 0 and width // heads <= 16, "heads", f"{heads} of a width of {width}")
    check(attentions <= 2, "attentions", f"{attentions} is above 2")
    out = [(channels, channels if j else 1, True, j < layers - 1, 0) for j in range(layers)]
    out.append((width, channels + 4, False, False, None))
    for _ in range(attentions):
        out += [(3 * width, width, False, False, None), (width, width, False, True, None)]
        out += [(width, width, False, False, None)]
    return [*out, (width, width, False, True, None), (1, width, False, False, None)]


class Refiner:
    """The fields, all of whose limits are checked but those that depend on the volume."""

    def __init__(self, payload: Reader) -> None:
        size = len(payload.rest)
        check((kind := payload.number("u8", "kind")) in (68, 79), "kind", f"{kind} is reserved")
        check((reach := payload.number("u8", "reach")) < 8, "reach", f"{reach} has reserved bits")
        self.dense, self.reach = kind == 68, [reach >> a & 1 for a in range(3)]
        self.scales = payload.array("u1", 3, "scales").tolist()
        check(max(self.scales) <= 3, "scales", f"{self.scales} are above 3")
        self.sizes = payload.array("u1", 5, "sizes").tolist()
        self.shapes = dense_layers(self.sizes, max(self.scales)) if self.dense else operator_layers(self.sizes)
        n = len(self.shapes) - 1
        counts = [outputs * inputs * self.seen(wide) for outputs, inputs, wide, *_ in self.shapes]
        outputs = [shape[0] for shape in self.shapes[:-1]]
        counts.insert(n, sum(outputs))
        parameters = sum(counts)
        check(parameters <= min(2**22, 64 * size), "sizes", f"{parameters} parameters are too many")
        self.multipliers = payload.array("<u4", n + 1, "multipliers").tolist()
        tables = []
        for _ in counts:
            slope, bend, peak = (payload.number("u16", field) for field in ("slope", "bend", "peak"))
            check(peak <= 1023, "peak", f"{peak} is above 1023")
            slope, bend = 2**32 - 1 - 32 * short(slope), 2**32 - 1 - 32 * short(bend)
            tables.append((np.arange(-peak, peak + 1), counts_of(slope, bend, peak)))
        lanes = max(1, -(-parameters // 1024))
        stream = payload.take(4 * lanes + 2 * payload.number("u32", "words"), "stream")
        coded = Lanes(Reader(stream), lanes, tables)
        symbols = coded.run(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
        coded.finish()
        groups = np.split(symbols, np.cumsum(counts)[:-1])
        self.biases = np.split(groups.pop(n), np.cumsum(outputs)[:-1])
        self.weights = [g.reshape(shape[0], -1) for g, shape in zip(groups, self.shapes, strict=True)]
        for number, rows in enumerate(self.weights):
            most = 1023 * np.abs(rows).sum(1)
            check(np.all(most < 2**24), "stream", "a row of weights is too large")
            if number < n:
                for m, b in zip(most.tolist(), np.abs(self.biases[number]).tolist(), strict=True):
                    z = m * self.multipliers[number] + b * self.multipliers[-1]
                    check(z < 2**52, "stream", "a sum is too large")

    def seen(self, wide: bool) -> int:
        return 3 ** sum(self.reach) if wide else 1

    def lengths(self, volume: tuple[int, ...], grid: int) -> list[int]:
        """The lengths of a grid."""
        return [-(-n >> e) << min(grid, e) for n, e in zip(volume, self.scales, strict=True)]

    def check_volume(self, volume: tuple[int, ...]) -> None:
        """The limits of products and of maps."""
        products = 0
        d, layers, growth, first, _ = self.sizes
        for outputs, inputs, wide, _, grid in self.shapes:
            room = list(volume)
            if grid is not None:
                room = [m + 2 * r for m, r in zip(self.lengths(volume, grid), self.reach, strict=True)]
                maps = outputs
                if grid == 0:
                    maps = first + d * layers * growth if self.dense else self.sizes[1]
                held = math.prod(room if self.reach[0] else room[1:])
                check(held * maps <= 2**27, "scales", f"{maps} maps of {room}")
            products += outputs * inputs * self.seen(wide) * math.prod(room)
        check(products <= 2**20 * math.prod(volume), "scales", f"{products} products")

    def sums(self, number: int, x: np.ndarray) -> np.ndarray:
        """The sums of products of a layer, or the read-out, at all positions of maps."""
        if not self.shapes[number][2]:
            return np.tensordot(self.weights[number], x, 1)
        around = np.pad(x, [(0, 0), *((r, r) for r in self.reach)])
        steps = itertools.product(*(range(1 + 2 * r) for r in self.reach))
        parts = np.split(self.weights[number], self.seen(True), axis=1)
        out = 0
        for at, w in zip(steps, parts, strict=True):
            cut = tuple(slice(a, a + n) for a, n in zip(at, x.shape[1:], strict=True))
            out = out + np.tensordot(w, around[(slice(None), *cut)], 1)
        return np.asarray(out)

    def layer(self, number: int, x: np.ndarray) -> np.ndarray:
        """The outputs of a layer."""
        b = self.biases[number].reshape(-1, 1, 1, 1)
        y = units(self.sums(number, x) * self.multipliers[number] + b * self.multipliers[-1])
        return np.clip(y, 0 if self.shapes[number][3] else -1023, 1023)


# Section 17.3. Images.
def doubled(x: np.ndarray, volume: tuple[int, ...], scales: list[int]) -> np.ndarray:
    """Take maps of the coarse grid to the fine one."""
    for axis, (n, e) in enumerate(zip(volume, scales, strict=True), 1):
        t = 2 * np.arange(n) + 1 - 2**e
        j = t >> e + 1
        v = (t - (j << e + 1)).reshape([-1 if a == axis else 1 for a in range(4)])
        last = x.shape[axis] - 1
        one, other = (np.take(x, np.clip(at, 0, last), axis) for at in (j, j + 1))
        x = one * (2 ** (e + 1) - v) + other * v
    b = sum(scales) + 3
    return (x + (1 << (b - 1))) >> b


# Section 17.4. Dense.
def dense(refiner: Refiner, x: np.ndarray, volume: tuple[int, ...]) -> np.ndarray:
    """Return the sums of the read-out, of I(k)."""
    blocks, layers, *_ = refiner.sizes
    maps, number = [refiner.layer(0, x)], 1
    for _ in range(blocks):
        first = len(maps)
        for j in range(layers):
            seen = maps[first:] if j else maps[:first]
            maps.append(refiner.layer(number, np.concatenate(seen)))
            number += 1
    y = refiner.layer(number, np.concatenate(maps))
    for j in range(1, max(refiner.scales) + 1):
        wide = np.zeros((len(y), *refiner.lengths(volume, j)), np.int64)
        wide[(slice(None), *(slice(None, None, 2 if e >= j else 1) for e in refiner.scales))] = y
        y = refiner.layer(number + j, wide)
    z, rows, columns = volume
    return refiner.sums(len(refiner.shapes) - 1, y)[0, :z, :rows, :columns]


# Section 17.5. Operator.
def normalised(x: np.ndarray) -> np.ndarray:
    """Normalise the units of heads: heads, units, positions."""
    d = x.shape[1]
    y = d * x - x.sum(axis=1, keepdims=True)
    square = 2**12 * d * (y * y).sum(axis=1, keepdims=True)
    r = np.sqrt(square).astype(np.int64)  # near the root; made exact in integers
    r -= r * r > square
    r += (r + 1) * (r + 1) <= square
    r = np.maximum(1, r)
    return (2**14 * d * y + r // 2) // r


def operator(refiner: Refiner, x: np.ndarray, image: np.ndarray, volume: tuple[int, ...]) -> np.ndarray:
    """Return the sums of the read-out, of I(k) and I(u)."""
    layers, _, width, heads, attentions = refiner.sizes
    for j in range(layers):
        x = refiner.layer(j, x)
    inputs = [*doubled(x, volume, refiner.scales), image]
    for axis, e in enumerate(refiner.scales):
        i = np.indices(volume)[axis]
        inputs.append((2 * (i % 2**e) + 1 - 2**e) << (10 - e))
    h = refiner.layer(layers, np.array(inputs))
    number, n = layers + 1, math.prod(volume)
    for _ in range(attentions):
        split = refiner.layer(number, h).reshape(3, heads, width // heads, n)
        q, key, value = split[0], normalised(split[1]), normalised(split[2])
        mean = 16 * np.einsum("hip,hjp->hij", key, value) // n
        k = clamp(mean + 2**9 >> 10)
        a = np.einsum("hip,hij->hjp", q, k) + 2**9 >> 10
        a = clamp(a.reshape(h.shape) + h)
        h = clamp(h + refiner.layer(number + 2, refiner.layer(number + 1, a)))
        number += 3
    return refiner.sums(number + 1, refiner.layer(number, h))[0]


def decode_superres(payload: Reader, dtype: np.dtype, box: tuple[int, ...], shared: tuple = ()) -> np.ndarray:
    """Mode 8: return the values of the box; `shared` are the bytes of the shared parameters."""
    check(dtype.kind != "b", "mode", "a superres cannot code bool")
    channel_axis = payload.number("u8", "channel_axis")  # section 17.1
    check(channel_axis in (*range(len(box)), 255), "channel_axis", f"{channel_axis} is no axis")
    space = [n for axis, n in enumerate(box) if axis != channel_axis]
    check(1 <= len(space) <= 3, "channel_axis", f"{len(space)} axes are left")
    exponent = payload.number("i8", "exponent")
    low, high = payload.number("i32", "low"), payload.number("i32", "high")
    check_outputs(dtype, exponent, low, high)
    check((place := payload.number("u8", "place")) <= 1, "place", f"{place} is reserved")
    if place:
        digest = bytes(payload.take(32, "digest"))
        found = [data for data in shared if hashlib.sha256(data).digest() == digest]
        check(found, "digest", "the configuration has no such network")
        refiner = Refiner(inner := Reader(found[0]))
        check(len(inner.rest) == 0, "digest", "bytes are left over")
    else:
        refiner = Refiner(payload)
    added = 3 - len(space)
    check(not any(refiner.scales[:added]), "scales", f"{refiner.scales} for {len(space)} axes")
    volume = (*[1] * added, *space)
    refiner.check_volume(volume)
    shifts = [payload.number("u8", field) for field in ("input_shift", "output_shift")]
    check(all(1 <= shift <= 40 for shift in shifts), "shifts", f"{shifts} are not in 1..40")
    channels = 1 if channel_axis == 255 else box[channel_axis]
    rows = [(payload.number("i32", "centre"), payload.number("u16", "gain"), payload.number("u16", "refinement"))
            for _ in range(channels)]  # fmt: skip
    for c, g, _ in rows:
        check(max(high - c, c - low) * short(g) < 2**52, "gain", f"{g} with a centre of {c}")
    network = Network(payload)
    check(len(payload.rest) == 0, "network", "bytes are left over")
    coarse = refiner.lengths(volume, 0)
    long = [m for m in coarse if m != 1]
    check(network.coordinates and network.inputs == len(long), "inputs", "they are not the coordinates of the grid")
    check(network.outputs == channels, "outputs", f"{network.outputs} for {channels} channels")
    network.check_sums([m - 1 for m in long])

    m = np.array(long, int).reshape(-1, 1)  # section 17.3
    places = np.indices(long).reshape(len(long), math.prod(long))
    k = np.clip(network.evaluate(2 * places - (m - 1)), low, high).reshape(-1, *coarse)
    values = np.empty((channels, *volume), dtype)
    for number, (c, g, r) in enumerate(rows):
        u = doubled(k[number : number + 1], volume, refiner.scales)[0]
        one, other = (clamp((y - c) * short(g) + (1 << (shifts[0] - 1)) >> shifts[0]) for y in (k[number], u))
        s = dense(refiner, one[None], volume) if refiner.dense else operator(refiner, one[None], other, volume)
        n = np.clip(u + (s * short(r) + (1 << (shifts[1] - 1)) >> shifts[1]), low, high)
        values[number] = np.ldexp(n.astype(np.float64), exponent) if dtype.kind == "f" else n << exponent
    axis = 0 if channel_axis == 255 else channel_axis
    return np.moveaxis(values.reshape(channels, *space), 0, axis).reshape(box)
