"""Section 15 of `inrstore-1.md`: mode 7, frames of an AV1 sequence. `decoder.py` hands it the box.

What the section checks is read here, bit by bit. The samples are left to a decoder of AV1, which is another standard:
dav1d (with PyAV), or aomdec of libaom where the environment variable AV1_DECODER says so.
"""

import math
import os
import subprocess
import tempfile
from typing import Any

import numpy as np
from decoder_inloop import Correction
from decoder_parts import Invalid, Reader, check, check_outputs

DELIMITER = b"\x12\x00"


class Bits:
    """Takes fields of bits, the first the most significant."""

    def __init__(self, data: memoryview) -> None:
        self.digits = "".join(f"{byte:08b}" for byte in data[:64])  # no header that is read here is longer

    def take(self, count: int) -> int:
        check(count <= len(self.digits), "stream", "a unit ends within its header")
        taken, self.digits = self.digits[:count], self.digits[count:]
        return int(taken or "0", 2)

    def must_be(self, value: int, count: int, name: str) -> None:
        check((found := self.take(count)) == value, "stream", f"{name} is {found}")


# Section 15.1. Header.
def decode_av1(payload: Reader, dtype: np.dtype, box: tuple[int, ...]) -> np.ndarray:
    """Mode 7: two axes are those of the frames, the others count them."""
    check(dtype.kind in "iuf", "mode", f"av1 cannot code {dtype}")
    check((flags := payload.number("u8", "flags")) <= 1, "flags", f"{flags} has reserved bits")
    rows, columns = payload.number("u8", "rows"), payload.number("u8", "columns")
    check(rows < len(box), "rows", f"{rows} is no axis")
    check(columns < len(box) and columns != rows, "columns", f"{columns} is no other axis")
    check(1 <= (shift := payload.number("u8", "shift")) <= 45, "shift", f"{shift} is not in 1..45")
    exponent = payload.number("i8", "exponent")
    low, high = payload.number("i32", "low"), payload.number("i32", "high")
    check_outputs(dtype, exponent, low, high)
    check((gain := payload.number("u32", "gain")) >= 1, "gain", "it is 0")
    check(abs(offset := payload.number("i64", "offset")) < 2**52, "offset", f"{offset} is too large")
    h, w = box[rows], box[columns]
    height, width = max(64, h), max(64, w)
    others = [axis for axis in range(len(box)) if axis not in (rows, columns)]
    n = math.prod(box[axis] for axis in others)
    check(height * width <= 2**22, "rows, columns", f"frames of {width} x {height}")
    check(n * height * width <= 2**28, "rows, columns", f"{n} frames of {width} x {height}")
    correction = None
    if flags == 1:
        check(n * h * w <= 2**26, "rows, columns", f"{n * h * w} corrected samples")
        correction = Correction(payload, 1)
    units = split(payload.take(len(payload.rest), "stream"), n, width, height)
    samples = DECODERS[os.environ.get("AV1_DECODER", "dav1d")](units, n, width, height)
    samples = samples[:, :h, :w]
    # Section 15.4. Correction.
    if correction is not None:
        u = 16 * samples[None].astype(np.int64)
        correction.correct(u)
        samples = np.clip(u[0], 0, 16368)
    # Section 15.3. Outputs.
    count = 1024 if correction is None else 16369
    table = [min(max((gain * y + offset + 2 ** (shift - 1)) >> shift, low), high) for y in range(count)]
    if dtype.kind == "f":
        values = np.array([math.ldexp(k, exponent) for k in table]).astype(dtype)
    else:
        values = np.array([k << exponent for k in table], dtype)
    lengths = [box[axis] for axis in others]
    frames = values[samples].reshape(*lengths, h, w)
    return np.ascontiguousarray(np.moveaxis(frames, range(len(box)), [*others, rows, columns]))


# Section 15.2. Stream.
def split(stream: memoryview, n: int, width: int, height: int) -> list[bytes]:
    """Check a stream; return its temporal units."""
    out, kinds, shown, frames, sequence, unit = [], 0, 0, 0, None, DELIMITER
    while stream:
        kind, payload, size = read_unit(stream)
        unit, stream = unit + stream[:size], stream[size:]
        kinds += 1
        if kinds == 1:
            check(kind == 1, "stream", f"it begins with a unit of type {kind}")
            sequence = read_sequence(Bits(payload), width, height)
            continue
        check(kind in (3, 6), "stream", f"a unit of type {kind}")
        bits = Bits(payload)
        shows = bits.take(1)  # show_existing_frame
        check(shows == (kind == 3), "stream", f"show_existing_frame is {shows} in a unit of type {kind}")
        if kind == 6:
            shows = read_frame(bits, sequence, first=frames == 0)
            frames += 1
        if shows:
            out.append(bytes(unit))
            unit, shown = DELIMITER, shown + 1
        check(frames <= n and shown <= n, "stream", f"more than {n} frames")
    check(shown == n, "stream", f"{shown} frames, not {n}")
    check(unit == DELIMITER, "stream", "it does not end with a frame that is shown")
    return out


def read_unit(stream: memoryview) -> tuple[int, memoryview, int]:
    """Return type and payload of the unit in front, and its size as a whole (AV1 5.3.2, 4.10.5)."""
    bits = Bits(stream[:1])
    bits.must_be(0, 1, "obu_forbidden_bit")
    kind = bits.take(4)
    bits.must_be(0, 1, "obu_extension_flag")
    bits.must_be(1, 1, "obu_has_size_field")
    bits.must_be(0, 1, "obu_reserved_1bit")
    last = next((i for i, byte in enumerate(stream[1:5]) if byte < 128), None)
    check(last is not None, "stream", "obu_size does not end")
    size = sum((stream[1 + i] & 127) << 7 * i for i in range(last + 1))
    begin = 2 + last
    check(begin + size <= len(stream), "stream", f"obu_size is {size}, {len(stream) - begin} bytes are there")
    return kind, stream[begin : begin + size], begin + size


def read_sequence(bits: Bits, width: int, height: int) -> tuple[int, int]:
    """Check a sequence header (AV1 5.5); return seq_force_screen_content_tools and seq_force_integer_mv."""
    bits.must_be(0, 3, "seq_profile")
    for name in ("still_picture", "reduced_still_picture_header", "timing_info_present_flag"):
        bits.must_be(0, 1, name)
    initial_display_delay_present_flag = bits.take(1)
    bits.must_be(0, 5, "operating_points_cnt_minus_1")
    bits.must_be(0, 12, "operating_point_idc")
    if bits.take(5) > 7:  # seq_level_idx
        bits.take(1)
    if initial_display_delay_present_flag and bits.take(1):  # initial_display_delay_present_for_this_op
        check((delay := bits.take(4)) <= 9, "stream", f"initial_display_delay_minus_1 is {delay}")
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    bits.must_be(width - 1, wide, "max_frame_width_minus_1")
    bits.must_be(height - 1, high, "max_frame_height_minus_1")
    bits.must_be(0, 1, "frame_id_numbers_present_flag")
    bits.take(7)  # use_128x128_superblock to enable_dual_filter
    if enable_order_hint := bits.take(1):
        bits.take(2)
    tools = 2 if bits.take(1) else bits.take(1)
    integer = 2 if tools == 0 or bits.take(1) else bits.take(1)
    if enable_order_hint:
        bits.take(3)
    bits.must_be(0, 1, "enable_superres")
    bits.take(2)
    bits.must_be(1, 1, "high_bitdepth")
    mono_chrome = bits.take(1)
    bits.must_be(0, 1, "color_description_present_flag")
    bits.take(1)  # color_range
    if not mono_chrome:
        bits.take(3)
    bits.must_be(0, 1, "film_grain_params_present")
    return tools, integer


def read_frame(bits: Bits, sequence: tuple[int, int], first: bool) -> int:
    """Check a frame header (AV1 5.9.2) behind show_existing_frame; return show_frame."""
    kind, shown = bits.take(2), bits.take(1)
    check(kind == 0 if first else kind in (1, 2), "stream", f"frame_type is {kind}")
    if not shown:
        bits.take(1)  # showable_frame
    if kind != 0 or not shown:
        bits.take(1)  # error_resilient_mode
    bits.take(1)  # disable_cdf_update
    tools, integer = sequence
    if tools == 2:
        tools = bits.take(1)
    if tools and integer == 2:
        bits.take(1)
    bits.must_be(0, 1, "frame_size_override_flag")
    return shown


# The samples.
def by_dav1d(units: list[bytes], n: int, width: int, height: int) -> np.ndarray:
    """Return the luma of n frames."""
    import av

    codec, out = av.CodecContext.create("libdav1d", "r"), []
    codec.thread_count = 1
    try:
        for packet in (*map(av.Packet, units), None):
            for frame in codec.decode(packet):
                check(frame.format.name in ("yuv420p10le", "gray10le"), "stream", f"samples are {frame.format.name}")
                luma = frame.planes[0]
                out.append(np.frombuffer(luma, "<u2").reshape(frame.height, -1)[:, : frame.width].copy())
    except av.FFmpegError as error:
        raise Invalid(f"stream: dav1d: {error}") from None
    return checked(out, n, width, height)


def by_aomdec(units: list[bytes], n: int, width: int, height: int) -> np.ndarray:
    """Return the luma of n frames."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in.obu"), os.path.join(folder, "out.raw")
        with open(source, "wb") as file:
            file.write(b"".join(units))
        command = ["aomdec", "--rawvideo", "--output-bit-depth=10", "--threads=1", "-o", target, source]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        check(done.returncode == 0 and os.path.exists(target), "stream", f"aomdec: {done.stderr.strip()[-200:]}")
        data = np.fromfile(target, "<u2")
    luma, chroma = width * height, 2 * (-(-width // 2) * -(-height // 2))
    check(data.size in (n * luma, n * (luma + chroma)), "stream", "other frames than its headers say")
    return checked(list(data.reshape(n, -1)[:, :luma].reshape(n, height, width)), n, width, height)


def checked(frames: list[np.ndarray], n: int, width: int, height: int) -> np.ndarray:
    check(len(frames) == n, "stream", f"{len(frames)} frames can be decoded, not {n}")
    check(all(frame.shape == (height, width) for frame in frames), "stream", "frames of another size")
    return np.stack(frames)


DECODERS: dict[str, Any] = {"dav1d": by_dav1d, "aomdec": by_aomdec}
