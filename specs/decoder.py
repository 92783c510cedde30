"""An educational reader of the inrstore chunk format, version 1.

It follows `inrstore-1.md` section by section and needs only numpy and the standard library. It is written to
be read, and is slower than the package. `decode` turns the bytes of one chunk into an array; the command line
`python decoder.py FILE...` prints the type, the shape and the SHA-256 of what each file decodes to.
"""

import hashlib
import math
import sys
import zlib
from typing import Any

import numpy as np

BLOCK = 2**20  # numbers of one temporary array: large chunks are worked through in blocks


class Invalid(ValueError):
    """The bytes are not a frame of this format. The message begins with the field at fault."""


def check(condition: Any, field: str, problem: str) -> None:
    """Raise `Invalid` about `field` unless `condition` holds."""
    if not condition:
        raise Invalid(f"{field}: {problem}")


# Section 1. Promises and conventions.
class Reader:
    """Takes little-endian fields one after the other, and never beyond the end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.rest = memoryview(data)

    def take(self, size: int, field: str) -> memoryview:
        """Return the next `size` bytes."""
        check(size <= len(self.rest), field, f"{size} bytes expected, {len(self.rest)} are there")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def number(self, kind: str, field: str) -> int:
        """Return one number; `kind` is u8, u16, u32, i8 or i32, as in the specification."""
        return int.from_bytes(self.take(int(kind[1:]) // 8, field), "little", signed=kind[0] == "i")

    def array(self, dtype: str, count: int, field: str) -> np.ndarray:
        """Return `count` numbers of a little-endian numpy type."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, field), dtype)


def inflate(data: memoryview, size: int, field: str) -> bytes:
    """Inflate a zlib stream that must fill `data` and give exactly `size` bytes."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, max(size, 1))  # to zlib, a limit of 0 would mean none
        tail = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise Invalid(f"{field}: {error}") from None
    check(len(out) == size and not tail, field, f"does not inflate to {size} bytes")
    check(stream.eof, field, "the zlib stream is cut short")
    check(not stream.unused_data, field, "bytes are left over after the zlib stream")
    return out


# Section 2.1. CRC32C.
CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [x >> 1 ^ (x & 1) * 0x82F63B78 for x in CRC_TABLE]


def crc32c(data: bytes) -> int:
    """Return the CRC32C of some bytes."""
    register, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        register = table[(register ^ byte) & 255] ^ register >> 8
    return register ^ 0xFFFFFFFF


# Section 2.2. Data types.
TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<i8", 5: "<u1", 6: "<u2", 7: "<u4", 8: "<u8"}
TYPES |= {9: "<f2", 10: "<f4", 11: "<f8", 12: "?"}


def values_of(data: Any, dtype: np.dtype, field: str) -> np.ndarray:
    """Return bytes as values of `dtype`; a bool must be 0 or 1."""
    raw = np.frombuffer(data, np.uint8)
    check(dtype.kind != "b" or raw.size == 0 or raw.max() <= 1, field, "a bool is neither 0 nor 1")
    return raw.view(dtype)


# Section 2. Frame.
def decode(data: bytes, shape: tuple[int, ...] | None = None, dtype: Any = None) -> np.ndarray:
    """Decode one chunk, or raise `Invalid`.

    Parameters
    ----------
    data
        The bytes of the frame.
    shape, dtype
        What the array is known to have, if it is known; the frame must agree, byte order apart.
    """
    data = bytes(data)
    check(data[:4] == b"\x89INR", "magic", "this is no inrstore frame")
    check(len(data) >= 8, "frame_crc", "the frame is cut short")
    check(crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), "frame_crc", "the frame is damaged")
    reader = Reader(data[4:-4])
    check((version := reader.number("u8", "version")) == 1, "version", f"{version} is not known")
    check((mode := reader.number("u8", "mode")) in MODES, "mode", f"{mode} is reserved")

    check((code := reader.number("u8", "dtype")) & 63 in TYPES, "dtype", f"{code & 63} is reserved")
    kind = np.dtype(TYPES[code & 63])
    big_endian, fortran = bool(code & 128), bool(code & 64)
    check(not (big_endian and kind.itemsize == 1), "dtype", "one byte has no byte order")
    check(dtype is None or np.dtype(dtype).newbyteorder("<") == kind, "dtype", f"{kind}, not {dtype}")
    check((ndim := reader.number("u8", "ndim")) <= 8, "ndim", f"{ndim} is above 8")
    lengths = tuple(reader.array("<u4", ndim, "shape").tolist())
    check(math.prod(n or 1 for n in lengths) <= 2**27, "shape", f"{lengths} is above 2^27 values")
    check(shape is None or tuple(shape) == lengths, "shape", f"{lengths}, not {shape}")
    check(mode == 0 or math.prod(lengths) > 0, "mode", "a chunk without values must be raw")

    decoded_crc = reader.number("u32", "decoded_crc")
    payload_length = reader.number("u32", "payload_length")
    check(payload_length == len(reader.rest), "payload_length", f"{payload_length}, not {len(reader.rest)}")
    values = MODES[mode](reader, kind, lengths)
    check(len(reader.rest) == 0, "payload", "bytes are left over")
    check(crc32c(values.tobytes()) == decoded_crc, "decoded_crc", "the result differs")
    return np.array(values, kind.newbyteorder(">") if big_endian else kind, order="F" if fortran else "C")


# Section 3. Modes. Each function turns a payload into the values of the chunk, in C order.
def decode_raw(payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Mode 0: the values themselves."""
    data = payload.take(math.prod(shape) * dtype.itemsize, "payload")
    return values_of(data, dtype, "payload").reshape(shape)


def decode_constant(payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Mode 1: one value, everywhere."""
    value = values_of(payload.take(dtype.itemsize, "payload"), dtype, "payload")
    return np.repeat(value, math.prod(shape)).reshape(shape)


# Section 4. Envelope.
def decode_boxed(code: Any, payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Modes 2 and 3: read the envelope, let `code` decode the box, then put the box into the chunk."""
    check((flags := payload.number("u8", "flags")) < 4, "flags", f"{flags} has reserved bits")
    start, stop, fill = (0,) * len(shape), shape, None
    if flags & 1:
        start = tuple(payload.array("<u4", len(shape), "start").tolist())
        stop = tuple(payload.array("<u4", len(shape), "stop").tolist())
        for a, b, n in zip(start, stop, shape, strict=True):
            check(a < b <= n, "start, stop", f"{a} to {b} is no part of {n}")
        fill = values_of(payload.take(dtype.itemsize, "fill"), dtype, "fill")
    box = tuple(b - a for a, b in zip(start, stop, strict=True))
    count = math.prod(box)

    replaced = exceptional = None
    if flags & 2:
        check(dtype.kind == "f", "flags", "exceptions are for floating-point types")
        stream = payload.take(payload.number("u32", "bitmap length"), "bitmap")
        bits = np.unpackbits(np.frombuffer(inflate(stream, -(-count // 8), "bitmap"), np.uint8))
        check(not bits[count:].any(), "bitmap", "the padding is not zero")
        replaced = bits[:count].view(bool).reshape(box)
        stream = payload.take(payload.number("u32", "exceptional values length"), "exceptional values")
        size = int(np.count_nonzero(replaced)) * dtype.itemsize
        exceptional = np.frombuffer(inflate(stream, size, "exceptional values"), dtype)

    values = code(payload, dtype, box)
    if replaced is not None:
        values[replaced] = exceptional
    if fill is None:
        return values
    chunk = np.repeat(fill, math.prod(shape)).reshape(shape)
    chunk[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = values
    return chunk


# Section 5. Siren: header.
def range_of(dtype: np.dtype) -> tuple[int, int]:
    """Return the smallest and largest finite value of a type; both are whole numbers."""
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def decode_siren(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 3: a sine network that maps the position in the box to the value of every channel."""
    size = len(payload.rest)
    check(dtype.kind != "b", "mode", "a siren cannot code bool")
    channel_axis = payload.number("u8", "channel_axis")
    check(channel_axis in (*range(len(box)), 255), "channel_axis", f"{channel_axis} is no axis")
    space = tuple(n for axis, n in enumerate(box) if axis != channel_axis)
    channels = 1 if channel_axis == 255 else box[channel_axis]
    check(1 <= (layers := payload.number("u8", "layers")) <= 16, "layers", f"{layers} is not in 1..16")
    check(1 <= (width := payload.number("u16", "width")) <= 256, "width", f"{width} is not in 1..256")
    # Of W[0], W[1] .. W[L-1], B, V:
    shapes = [(width, len(space))] + [(width, width)] * (layers - 1) + [(layers, width), (channels, width)]
    parameters = sum(rows * columns for rows, columns in shapes)
    check(parameters <= min(2**22, 64 * size), "width", f"{parameters} parameters are too many")

    exponent = payload.number("i8", "exponent")
    check(4 <= (shift := payload.number("u8", "shift")) <= 34, "shift", f"{shift} is not in 4..34")
    low, high = payload.number("i32", "low"), payload.number("i32", "high")
    check(low <= high, "low, high", f"{low} is above {high}")
    allowed = range(-100, 101) if dtype.kind == "f" else range(41)
    check(exponent in allowed, "exponent", f"{exponent} is not allowed for {dtype}")
    smallest, largest = range_of(dtype)
    for bound in (low, high):  # bound 2^exponent, compared in integers
        above, below = bound << max(exponent, 0), 1 << max(-exponent, 0)
        check(smallest * below <= above <= largest * below, "low, high", f"outside the range of {dtype}")

    multipliers = payload.array("<u4", layers + 1, "multipliers")
    tables = []
    for _ in range(layers + 2):
        slope, bend = payload.number("u32", "slope"), payload.number("u32", "bend")
        check((peak := payload.number("u16", "peak")) <= 1023, "peak", f"{peak} is above 1023")
        tables.append((slope, bend, peak))
    check((gain_kind := payload.number("u8", "gain_kind")) <= 1, "gain_kind", f"{gain_kind} is reserved")
    gains = payload.array("<u2", channels if gain_kind else 1, "gains").astype(np.int64)
    gains = (gains & 0xFFF) << (gains >> 12)
    offsets = payload.array("<i4", channels, "offsets").astype(np.int64)

    weights = decode_symbols(payload, shapes, tables)
    for rows in weights[1:layers] + weights[-1:]:  # section 7
        check(np.all(np.abs(rows).sum(axis=1) * 1023 < 2**24), "symbols", "a row of weights is too large")

    count = math.prod(space)
    values = np.empty((count, channels), dtype)
    step = max(1, BLOCK // max(width, channels))
    for first in range(0, count, step):
        index = np.arange(first, min(first + step, count))
        sums = evaluate(index, space, weights, multipliers)
        k = (sums * gains + (offsets << (shift - 4)) + (1 << (shift - 1))) >> shift  # within 64 bits
        k = np.clip(k, low, high)
        if dtype.kind == "f":  # exact in binary64, then rounded once
            values[index] = np.ldexp(k.astype(np.float64), exponent).astype(dtype)
        else:  # modulo 2^64, which is harmless: the result is known to lie in the type
            values[index] = (k.view(np.uint64) << np.uint64(exponent)).astype(dtype)
    if channel_axis == 255:
        return values.reshape(box)
    return np.ascontiguousarray(np.moveaxis(values.reshape(*space, channels), -1, channel_axis))


# Section 6. Entropy coding.
def counts_of(slope: int, bend: int, peak: int) -> list[int]:
    """Section 6.1: return the counts of the symbols -peak..peak."""
    g, r = [2**28], slope + 1
    for _ in range(peak):
        g.append(g[-1] * r >> 32)
        r = r * (bend + 1) >> 32
    total = g[0] + 2 * sum(g[1:])
    f = [1 + x * (16384 - (2 * peak + 1)) // total for x in g]
    f[0] += 16384 - (f[0] + 2 * sum(f[1:]))
    return f[:0:-1] + f


def decode_symbols(payload: Reader, shapes: list[tuple[int, ...]], tables: list[tuple]) -> list[np.ndarray]:
    """Section 6.2: read the groups of symbols; all lanes take one step at a time, side by side."""
    # For each group and each of its 16384 slots: the symbol, its count and its start.
    symbol = np.empty((len(tables), 16384), np.int32)
    count, start = np.empty_like(symbol, np.int64), np.empty_like(symbol, np.int64)
    for row, table in enumerate(tables):
        counts = np.array(counts_of(*table))
        symbol[row] = np.repeat(np.arange(counts.size) - counts.size // 2, counts)
        count[row] = np.repeat(counts, counts)
        start[row] = np.repeat(np.cumsum(counts) - counts, counts)

    sizes = [rows * columns for rows, columns in shapes]
    n = sum(sizes)
    group = np.repeat(np.arange(len(sizes)), sizes)
    lanes = max(1, -(-n // 1024))
    states = payload.array("<u4", lanes, "states").astype(np.int64)
    check(np.all(states >= 2**16), "states", "a state is below 2^16")
    check(len(payload.rest) % 2 == 0, "words", "an odd byte is left over")
    words = payload.array("<u2", len(payload.rest) // 2, "words").astype(np.int64)

    symbols, used = np.empty(n, np.int32), 0
    for first in range(0, n, lanes):
        now = slice(first, min(first + lanes, n))
        x = states[: now.stop - first]  # a view: changing x changes the states
        slot = x & 16383
        where = (group[now], slot)
        symbols[now] = symbol[where]
        x[:] = count[where] * (x >> 14) + slot - start[where]
        short = np.flatnonzero(x < 2**16)  # these lanes take the next words, in their order
        check(used + short.size <= words.size, "words", "too few")
        x[short] = x[short] << 16 | words[used : used + short.size]
        used += short.size
    check(used == words.size, "words", "too many")
    check(np.all(states == 2**16), "states", "a state does not end at 2^16")
    parts = np.split(symbols, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


# Section 7. Siren: evaluation. Arrays of uint32 and int32 wrap modulo 2^32, as phases do.
SINE = np.rint(1023 * np.sin(2 * np.pi * (np.arange(4096) + 0.5) / 4096)).astype(np.int32)


def evaluate(index: np.ndarray, space: tuple, weights: list, multipliers: np.ndarray) -> np.ndarray:
    """Return the sums of V s at positions of the box, given by their index in C order: positions x channels."""
    s = np.empty((len(space), index.size), np.int32)  # the coordinates c, then the output of each layer
    for axis in reversed(range(len(space))):
        index, j = np.divmod(index, space[axis])
        s[axis] = 2 * j - (space[axis] - 1)
    *matrices, biases, readout = weights
    for layer, matrix in enumerate(matrices):
        phase = (matrix @ s).astype(np.uint32) * multipliers[layer]
        phase += (biases[layer].astype(np.uint32) * multipliers[-1])[:, None]
        s = SINE[phase >> 20]
    return (readout @ s).T.astype(np.int64)


# Section 8. Planes.
def decode_planes(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 2: an index for each value, deflated byte plane by byte plane."""
    check((kind := payload.number("u8", "kind")) <= 2, "kind", f"{kind} is reserved")
    check(kind == 0 or dtype.kind in ("iu", "f")[kind - 1], "kind", f"{kind} is not for {dtype}")
    channel_axis = payload.number("u8", "channel_axis")
    check(channel_axis in (*range(len(box) if kind else 0), 255), "channel_axis", f"{channel_axis} is not allowed")
    width = dtype.itemsize
    if kind:
        wide = f"<{dtype.kind}8"
        low, high = payload.array(wide, 2, "low, high").tolist()
        smallest, largest = range_of(dtype)
        check(smallest <= low <= high <= largest, "low, high", f"{low} to {high} is no range in {dtype}")
        channels = 1 if channel_axis == 255 else box[channel_axis]
        steps = payload.array("<f8" if kind == 2 else "<u8", channels, "steps")
        check(np.all((steps > 0) & np.isfinite(steps)), "steps", "not all are positive and finite")
        width = payload.number("u8", "width")
        check(width in (1, 2, 4, 8) and width <= dtype.itemsize, "width", f"{width} bytes for {dtype}")
    check((axes := payload.number("u8", "axes")) >> len(box) == 0, "axes", f"{axes} has reserved bits")

    # Section 8.1. Grid.
    count = math.prod(box)
    planes = np.frombuffer(inflate(payload.take(len(payload.rest), "planes"), width * count, "planes"), np.uint8)
    u = np.ascontiguousarray(planes.reshape(width, count).T).view(f"<u{width}").reshape(-1)
    if axes:
        u = (u >> 1) ^ (0 - (u & 1))
    u = u.reshape(box)
    for axis in range(len(box)):
        if axes >> axis & 1:
            u = np.cumsum(u, axis=axis, dtype=u.dtype)
    u = u.reshape(-1)

    # Section 8.2. Kind 0.
    if kind == 0:
        top = np.array(1 << (8 * width - 1), u.dtype)
        if dtype.kind == "i":
            u = u ^ top
        elif dtype.kind == "f":
            u = np.where(u & top, u ^ top, ~u)
        return values_of(u.view(np.uint8), dtype, "planes").reshape(box)

    # Sections 8.2 and 8.3. Kinds 1 and 2; the step of a value is that of its index along the channel axis.
    inner = math.prod(box[channel_axis + 1 :])
    values = np.empty(count, dtype)
    for first in range(0, count, BLOCK):
        part = slice(first, min(first + BLOCK, count))
        step = steps[np.arange(part.start, part.stop) // inner % steps.size]
        if kind == 1:
            # Where u <= span // step, u step fits 64 bits. All modulo 2^64; the sum lies within the type.
            span = np.uint64(high - low)
            index = u[part].astype(np.uint64)
            above = np.where(index <= span // step, index * step, span)
            values[part] = (above + np.array(low, wide).view(np.uint64)).astype(dtype)
        else:
            with np.errstate(over="ignore", under="ignore"):
                x = low + u[part].astype(np.float64) * step
                x = np.where(x < low, low, np.where(x > high, high, x))
                values[part] = x.astype(dtype)
    return values.reshape(box)


MODES = {
    0: decode_raw,
    1: decode_constant,
    2: lambda *arguments: decode_boxed(decode_planes, *arguments),
    3: lambda *arguments: decode_boxed(decode_siren, *arguments),
}


def main(paths: list[str]) -> int:
    """Print what every file decodes to; return 1 if any is invalid, else 0."""
    status = 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                array = decode(file.read())
            data = array.astype(array.dtype.newbyteorder("<")).tobytes("C")
            print(f"{path}: {array.dtype} {array.shape} {hashlib.sha256(data).hexdigest()}")
        except (Invalid, OSError) as error:
            print(f"{path}: invalid: {error}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
