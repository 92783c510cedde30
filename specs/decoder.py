"""An educational reader of the inrstore chunk format, version 1.

It follows `inrstore-1.md` section by section, needs only numpy and the standard library (and a decoder of AV1 for
section 15), and is written to be read.
`decoder_parts.py` has what the sections share, `decoder_numbers.py` section 4.2, `decoder_network.py` section 7,
`decoder_predictor.py` section 12, `decoder_neural.py` section 13, `decoder_transform.py` section 14,
`decoder_av1.py` section 15, `decoder_inloop.py` section 16, `decoder_superres.py` section 17.
`python decoder.py FILE...` prints the type, the shape and the SHA-256 of what each file decodes to.
"""

import hashlib
import math
import os.path
import sys
from functools import partial
from typing import Any

import numpy as np

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # more files of this reader lie beside it
from decoder_av1 import decode_av1
from decoder_network import Network
from decoder_neural import decode_neural
from decoder_numbers import read_numbers
from decoder_parts import Invalid, Lanes, Reader, check, check_outputs, from_order, inflate, range_of
from decoder_predictor import decode_predictor
from decoder_superres import decode_superres
from decoder_transform import decode_transform

__all__ = ["Invalid", "Reader", "crc32c", "decode", "decode_mask"]

BLOCK = 2**20  # numbers of one temporary array: large chunks are worked through in blocks


# Section 2.1. CRC32C.
CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [x >> 1 ^ (x & 1) * 0x82F63B78 for x in CRC_TABLE]


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = CRC_TABLE[(register ^ byte) & 255] ^ register >> 8
    return register ^ 0xFFFFFFFF


# Section 2.2. Data types.
TYPES = dict(enumerate("<i1 <i2 <i4 <i8 <u1 <u2 <u4 <u8 <f2 <f4 <f8 ?".split(), 1))


def values_of(data: Any, dtype: np.dtype, field: str) -> np.ndarray:
    """Return bytes as values of `dtype`; a bool must be 0 or 1."""
    raw = np.frombuffer(data, np.uint8)
    check(dtype.kind != "b" or raw.size == 0 or raw.max() <= 1, field, "a bool is neither 0 nor 1")
    return raw.view(dtype)


# Section 2. Frame.
def decode(data: bytes, shape: tuple[int, ...] | None = None, dtype: Any = None, shared: tuple = ()) -> np.ndarray:
    """Decode one chunk, or raise `Invalid`; `shape` and `dtype`, if known, must be the frame's, byte order apart.

    `shared` are the bytes of the shared parameters in the codec configuration.
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
    decoded_crc, payload_length = reader.array("<u4", 2, "decoded_crc, payload_length").tolist()
    check(payload_length == len(reader.rest), "payload_length", f"{payload_length}, not {len(reader.rest)}")
    code = partial(MODES[mode], shared=shared) if mode in (4, 6, 8) else MODES[mode]
    values = code(reader, kind, lengths) if mode < 2 else decode_boxed(code, reader, kind, lengths)
    check(len(reader.rest) == 0, "payload", "bytes are left over")
    check(crc32c(values.tobytes()) == decoded_crc, "decoded_crc", "the result differs")
    return np.array(values, kind.newbyteorder(">") if big_endian else kind, order="F" if fortran else "C")


# Section 3. Modes. Each function turns a payload into the values of the chunk, in C order.
def decode_raw(payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Mode 0: the values themselves."""
    return values_of(payload.take(math.prod(shape) * dtype.itemsize, "payload"), dtype, "payload").reshape(shape)


def decode_constant(payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Mode 1: one value, everywhere."""
    value = values_of(payload.take(dtype.itemsize, "payload"), dtype, "payload")
    check(not payload.rest or payload.number("u8", "outside") == 1, "outside", "it is neither 1 nor absent")
    return np.repeat(value, math.prod(shape)).reshape(shape)


# Section 4. Envelope.
def decode_boxed(code: Any, payload: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Modes 2 and up: read the envelope, let `code` decode the box, then put the box into the chunk."""
    check((flags := payload.number("u8", "flags")) < 16, "flags", f"{flags} has reserved bits")
    check(dtype.kind == "f" or not flags & 10, "flags", "exceptions and numbers are for floating-point types")
    start, stop = [0] * len(shape), shape
    if flags & 1:
        start, stop = payload.array("<u4", 2 * len(shape), "start, stop").reshape(2, -1).tolist()
        for a, b, n in zip(start, stop, shape, strict=True):
            check(a < b <= n, "start, stop", f"{a} to {b} is no part of {n}")
    count = math.prod(box := tuple(b - a for a, b in zip(start, stop, strict=True)))
    mask = fill = replaced = exceptional = None
    if flags & 5:
        fill = values_of(payload.take(dtype.itemsize, "fill"), dtype, "fill")
    if flags & 4:
        check((axes := payload.number("u8", "mask_axes")) >> len(box) == 0, "mask_axes", "reserved bits are set")
        coded = Reader(payload.take(payload.number("u32", "mask length"), "mask"))
        mask = decode_mask(coded, [n for axis, n in enumerate(box) if axes >> axis & 1])
        mask = mask.reshape([n if axes >> axis & 1 else 1 for axis, n in enumerate(box)])
    if flags & 2:
        stream = payload.take(payload.number("u32", "bitmap length"), "bitmap")
        bits = np.unpackbits(np.frombuffer(inflate(stream, -(-count // 8), "bitmap"), np.uint8))
        check(not bits[count:].any(), "bitmap", "the padding is not zero")
        replaced = bits[:count].view(bool).reshape(box)
        stream = payload.take(payload.number("u32", "exceptional values length"), "exceptional values")
        size = np.count_nonzero(replaced) * dtype.itemsize
        exceptional = np.frombuffer(inflate(stream, size, "exceptional values"), dtype)
    kind, values_from = read_numbers(payload, dtype) if flags & 8 else (dtype, np.asarray)
    values = values_from(code(payload, kind, box))
    if replaced is not None:
        values[replaced] = exceptional
    if mask is not None:
        np.copyto(values, fill, where=~mask)
    if fill is None:
        return values
    chunk = np.repeat(fill, math.prod(shape)).reshape(shape)
    chunk[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = values
    return chunk


# Section 4.1. Mask.
PARITIES = [(0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]


def decode_mask(payload: Reader, lengths: list[int]) -> np.ndarray:
    """Return the bits of a mask along the axes on which it varies; True is inside."""
    *first, rows, columns = 1, 1, *lengths
    n = math.prod(first), rows, columns
    lanes = payload.number("u16", "lanes")
    check(lanes >= max(1, -(-math.prod(n) // 2**15)), "lanes", f"{lanes} are too few")
    check(max(counts := payload.array("<u2", 19, "counts").tolist()) <= 16384, "counts", "one is above 16384")
    stream = Lanes(payload, lanes, [([1, 0], [f, 16384 - f]) for f in counts])
    bits = np.zeros(n, np.uint8)
    levels = (max(n) - 1).bit_length()  # the first pass is the one position of a step so long
    passes = [(levels, PARITIES[0])] + [(k, p) for k in reversed(range(levels)) for p in PARITIES[1:]]
    for k, parity in passes:
        places = [np.arange(p << k, m, 2 << k) for p, m in zip(parity, n, strict=True)]
        context = contexts_of(bits, places, 1 << k, parity)
        values, single = context // 16, (context > 0) & (context < 16)
        for sure, table in ((0, 17), (16, 18)):
            chosen = context == sure
            groups = stream.run(np.full(-(-np.count_nonzero(chosen) // 64), table))
            single[chosen] = np.repeat(groups, 64)[: np.count_nonzero(chosen)] == 1
        values[single] = stream.run(context[single])
        bits[np.ix_(*places)] = values
    stream.finish()
    return bits.astype(bool)


def contexts_of(bits: np.ndarray, places: list[np.ndarray], s: int, parity: tuple[int, ...]) -> np.ndarray:
    """Return the context of every bit of a pass: the vote of its known neighbours, in sixteenths."""
    known = PARITIES[: PARITIES.index(parity)]
    votes, total = np.zeros([len(x) for x in places], int), 0
    for o in np.argwhere(np.ones((3, 3, 3))) - 1:
        if o.any() and tuple((parity + o) % 2) in known:
            weight = 8 >> np.count_nonzero(o)
            total += weight
            there = [x + s * step for x, step in zip(places, o, strict=True)]
            exists = [(x >= 0) & (x < m) for x, m in zip(there, bits.shape, strict=True)]
            votes[np.ix_(*exists)] += weight * bits[np.ix_(*(x[e] for x, e in zip(there, exists, strict=True)))]
    return 16 * votes // max(total, 1)


# Section 5. Siren.
def decode_siren(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 3: a network that maps the position in the box to the value of every channel."""
    check(dtype.kind != "b", "mode", "a siren cannot code bool")
    channel_axis = payload.number("u8", "channel_axis")
    check(channel_axis in (*range(len(box)), 255), "channel_axis", f"{channel_axis} is no axis")
    exponent = payload.number("i8", "exponent")
    low, high = payload.number("i32", "low"), payload.number("i32", "high")
    check_outputs(dtype, exponent, low, high)
    network = Network(payload)
    space = tuple(n for axis, n in enumerate(box) if axis != channel_axis and n != 1)
    channels = 1 if channel_axis == 255 else box[channel_axis]
    check(network.coordinates and network.inputs == len(space), "inputs", "they are not the coordinates of the box")
    check(network.outputs == channels, "outputs", f"{network.outputs} for {channels} channels")
    network.check_sums([n - 1 for n in space])
    count = math.prod(space)
    values = np.empty((count, channels), dtype)
    step = max(1, BLOCK // max(channels, *(len(biases) for biases in network.biases)))
    for first in range(0, count, step):
        index = np.arange(first, min(first + step, count))
        places = np.array(np.unravel_index(index, space or (1,)))[: len(space)]
        x = 2 * places - (np.array(space, int).reshape(-1, 1) - 1)
        k = np.clip(network.evaluate(x), low, high).T
        if dtype.kind == "f":  # exact in binary64, then rounded once
            values[index] = np.ldexp(k.astype(np.float64), exponent).astype(dtype)
        else:  # modulo 2^64, which is harmless: the result is known to lie in the type
            values[index] = (k.view(np.uint64) << np.uint64(exponent)).astype(dtype)
    if channel_axis == 255:
        return values.reshape(box)
    others = [n for axis, n in enumerate(box) if axis != channel_axis]
    return np.moveaxis(values.reshape(*others, channels), -1, channel_axis)


# Section 8. Byteplanes.
def decode_byteplanes(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 2: an index for each value, deflated byte plane by byte plane."""
    check((kind := payload.number("u8", "kind")) <= 3, "kind", f"{kind} is reserved")
    check(kind in (0, 3) or dtype.kind in ("iu", "f")[kind - 1], "kind", f"{kind} is not for {dtype}")
    channel_axis = payload.number("u8", "channel_axis")
    check(
        channel_axis in (*range(len(box) if kind in (1, 2) else 0), 255),
        "channel_axis",
        f"{channel_axis} is not allowed",
    )
    width = dtype.itemsize
    if kind == 3:
        raw = inflate(payload.take(len(payload.rest), "values"), width * math.prod(box), "values")
        return np.array(values_of(raw, dtype, "values")).reshape(box)
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
    count = math.prod(box)  # section 8.1
    planes = np.frombuffer(inflate(payload.take(len(payload.rest), "planes"), width * count, "planes"), np.uint8)
    u = np.array(planes.reshape(width, count).T, order="C").view(f"<u{width}").reshape(box)
    if axes:
        u = (u >> 1) ^ (0 - (u & 1))
    for axis in range(len(box)):
        if axes >> axis & 1:
            u = np.cumsum(u, axis=axis, dtype=u.dtype)
    u = u.reshape(-1)
    if kind == 0:
        return values_of(from_order(u, dtype).view(np.uint8), dtype, "planes").reshape(box)
    # Sections 8.2 and 8.3; the step of a value is that of its index along the channel axis.
    inner, values = math.prod(box[channel_axis + 1 :]), np.empty(count, dtype)
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


MODES = {0: decode_raw, 1: decode_constant, 2: decode_byteplanes, 3: decode_siren, 4: decode_transform,
         5: decode_predictor, 6: decode_neural, 7: decode_av1, 8: decode_superres}  # fmt: skip


def main(paths: list[str]) -> None:
    """Print what every file decodes to; stop at one that is invalid."""
    for path in paths:
        array = decode(np.fromfile(path, np.uint8).tobytes())
        data = array.astype(array.dtype.newbyteorder("<")).tobytes("C")
        print(f"{path}: {array.dtype} {array.shape} {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1:])
