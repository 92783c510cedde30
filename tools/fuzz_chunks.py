"""Decode a great many damaged chunks: every one must give an array or a `CorruptChunkError`, soon and in little memory.

python -m tools.fuzz_chunks [--cases 1000000] [--seed 1] [--mode av1 | --name numbers]

The golden chunks, the vectors, a few generated transforms and two larger sequences of AV1 are changed (bytes, bits,
splices, lengths, numbers set to their extremes, contents of zlib streams, fields of some modes, units of AV1) and
sealed again with a correct checksum, so that the parsers behind it are reached. The checksum of the decoded values is
left out for most cases, for the same reason. One case in a hundred is also given to `specs/decoder.py`, which must
agree on what is valid and on every bit.
Frames in mode av1 are decoded in a process of its own (`tools.fuzz_apart`): libraries in C decode them, which may crash
or hang. `--mode` damages the frames of one mode alone, `--name` those whose name begins so.
Results go to tools/results/fuzz_chunks.json, those of one mode or name to an entry of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import resource
import struct
import sys
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, frame, modes
from inrstore.errors import CorruptChunkError
from tools.fuzz_apart import Apart

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "fuzz_chunks.json"
SLOW = 1.0
"""Seconds of processor time that no case may take."""
NAMES = ("numbers", "planes-plain")
"""Beginnings of the names of frames that can be damaged alone."""
GENERATED = 40  # frames in mode transform with random fields
SMALL = 1 << 16  # values up to which a frame is decoded whose shape nobody vouches for


@dataclass(frozen=True)
class Base:
    """A valid frame to damage, and what its array would say of it."""

    name: str
    data: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def bases() -> list[Base]:
    """Return the golden chunks, the valid vectors and generated frames, each different frame once."""
    from tools.vectors.av1 import Film, av1_frame
    from tools.vectors.transform import any_frame

    vectors = ROOT / "specs" / "vectors"
    folders = (ROOT / "tests" / "golden" / "1", vectors / "subset", vectors / "uncommon")
    frames = [(path.stem, path.read_bytes()) for folder in folders for path in sorted(folder.glob("*.chunk"))]
    frames += [(f"any-transform-{seed}", any_frame(seed)) for seed in range(GENERATED)]
    for name, shape in (("rich", (4, 128, 128)), ("rich-long", (9, 96, 160))):
        frames.append((f"av1-{name}", av1_frame(np.zeros(shape, "<i2"), Film(name=name))))
    found: dict[bytes, Base] = {}
    for name, data in frames:
        parsed = frame.unpack(data)
        found.setdefault(data, Base(name, data, parsed.shape, parsed.dtype))
    return list(found.values())


# ---- damage ------------------------------------------------------------------------------------------------

_EXTREMES = (0, 1, 2, -1, -2, 0x7F, 0x80, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 1 << 63, (1 << 63) - 1)


def damage(source: random.Random, base: bytes, other: bytes) -> bytes:
    """Return `base` with one to three changes, its length and checksum mostly put right."""
    body = bytearray(base[:-4])
    places = fields_of(base)
    if base[5] == modes.AV1.number and source.random() < 0.7:
        for _ in range(source.choice((1, 1, 2))):
            _in_units(source, body, other)
    elif places and source.random() < 0.5:
        _set_field(source, body, source.choice(places))
    for _ in range(source.choice((0, 1) if places else (1, 1, 1, 2, 3))):
        source.choice(_CHANGES)(source, body, other)
    if source.random() < 0.95:
        ndim = body[7] if len(body) > 7 and body[7] <= 8 else 0
        at = frame.header_size(ndim) - 4
        if len(body) >= at + 4:
            struct.pack_into("<I", body, at, len(body) - at - 4)
    return reseal(body)


def reseal(body: bytes | bytearray) -> bytes:
    """Return the body of a frame with its checksum."""
    return bytes(body) + struct.pack("<I", int(google_crc32c.value(bytes(body))))


def _place(source: random.Random, body: bytearray, size: int = 1) -> int:
    """Return a place to write to: often in the headers, sometimes anywhere."""
    most = max(0, len(body) - size)
    start = min(most, 4)  # damage to the magic says little
    return source.randint(start, min(most, start + 90)) if source.random() < 0.6 else source.randint(start, most)


def _set_byte(source: random.Random, body: bytearray, other: bytes) -> None:
    if body:
        body[_place(source, body)] = source.choice((0, 0xFF, source.randrange(256)))


def _flip_bit(source: random.Random, body: bytearray, other: bytes) -> None:
    if body:
        body[_place(source, body)] ^= 1 << source.randrange(8)


def _set_number(source: random.Random, body: bytearray, other: bytes) -> None:
    size = source.choice((1, 2, 4, 8))
    if len(body) >= size:
        _change(source, body, _place(source, body, size), size)


@cache
def fields_of(data: bytes) -> tuple[tuple[int, int], ...]:
    """Return where the fields of a predictor, transform or av1 without envelope lie; nothing of another frame."""
    parsed = frame.unpack(data)
    decoder, places = reader(), list[tuple[int, int]]()
    read = {modes.PREDICTOR.number: decoder.decode_predictor, modes.TRANSFORM.number: decoder.decode_transform,
            modes.AV1.number: decoder.decode_av1}.get(parsed.mode)  # fmt: skip
    if read is None or parsed.payload[0] != 0:
        return ()

    class Noting(decoder.Reader):  # type: ignore[name-defined, misc]
        def take(self, size: int, field: str) -> memoryview:
            end = len(data) - 4 - len(self.rest) + size
            places.append((end - size, end))
            return super().take(size, field)  # type: ignore[no-any-return]

    little = dtypes.little(parsed.dtype)
    read(Noting(parsed.payload[1:]), little, parsed.shape)
    return tuple(place for place in places if place[0] < place[1])


def _set_field(source: random.Random, body: bytearray, place: tuple[int, int]) -> None:
    """Change a number in a field, or all of a short field."""
    size = place[1] - place[0] if place[1] - place[0] <= 4 else source.choice((1, 2))
    _change(source, body, source.randint(place[0], place[1] - size), size)


def _change(source: random.Random, body: bytearray, at: int, size: int) -> None:
    old = int.from_bytes(body[at : at + size], "little")
    new = source.choice((*_EXTREMES, old + 1, old - 1, old * 2, -old)) % (1 << 8 * size)
    body[at : at + size] = new.to_bytes(size, "little")


def _splice(source: random.Random, body: bytearray, other: bytes) -> None:
    at, start = _place(source, body), source.randrange(len(other))
    piece = other[start : start + source.randint(1, 24)]
    body[at : at + source.choice((0, len(piece)))] = piece


def _cut(source: random.Random, body: bytearray, other: bytes) -> None:
    at = _place(source, body)
    del body[at : at + source.choice((1, 1, 2, 4, source.randint(1, 64), len(body)))]


def _append(source: random.Random, body: bytearray, other: bytes) -> None:
    body += source.randbytes(source.choice((1, 2, 4, 16)))


def _inside_zlib(source: random.Random, body: bytearray, other: bytes) -> None:
    """Change what a zlib stream holds, or how much."""
    at = body.find(b"\x78", source.randrange(20, 60))
    while at >= 0:
        engine = zlib.decompressobj()
        try:
            raw = bytearray(engine.decompress(bytes(body[at:]), 1 << 16))
        except zlib.error:
            at = body.find(b"\x78", at + 1)
            continue
        end = len(body) - len(engine.unused_data)
        how = source.randrange(4)
        if how == 0 and raw:
            raw[source.randrange(len(raw))] = source.randrange(256)
        elif how == 1:
            raw = bytearray(source.randbytes(len(raw)))
        elif how == 2:
            raw = raw[: source.randint(0, len(raw))]
        else:
            raw += bytes(source.choice((1, 100, 100_000)))
        packed = zlib.compress(bytes(raw), 1)
        if at >= 4 and int.from_bytes(body[at - 4 : at], "little") == end - at:  # exceptions carry their length
            body[at - 4 : at] = len(packed).to_bytes(4, "little")
        body[at:end] = packed
        return


def _units_of(data: bytes | bytearray) -> tuple[int, list[bytes]]:
    """Return where the units of AV1 at the end of a body begin, and their bytes without headers of units."""
    at = data.find(b"\x0a\x0a\x00\x00\x00")
    begin, out = at, list[bytes]()
    while 0 <= at < len(data) - 1:
        size, place, shift = 0, at + 1, 0
        while place < len(data) and shift < 28:
            size |= (data[place] & 127) << shift
            place, shift = place + 1, shift + 7
            if data[place - 1] < 128:
                break
        out.append(bytes(data[at : at + 1]) + bytes(data[place : place + size]))
        at = place + size
    return begin, out


def _in_units(source: random.Random, body: bytearray, other: bytes) -> None:
    """Change a unit of AV1 or the order of units; sizes are put right."""
    begin, found = _units_of(body)
    strange = _units_of(other[:-4])[1]
    if not found:
        return
    place, how = source.randrange(len(found)), source.randrange(9)
    if how == 0:
        del found[place]
    elif how == 1:
        found.insert(source.randrange(len(found) + 1), found[place])
    elif how == 2:
        found.append(found.pop(place))
    elif how == 3 and strange:
        found[place] = source.choice(strange)
    else:
        unit = bytearray(found[place])
        for _ in range(source.choice((1, 1, 2, 5))):
            spot = source.randrange(len(unit)) if source.random() < 0.5 else min(len(unit) - 1, source.randrange(1, 9))
            if how <= 5:
                unit[spot] ^= 1 << source.randrange(8)
            elif how == 6:
                del unit[max(1, spot) :]
            elif how == 7:
                unit[spot:spot] = source.randbytes(source.choice((1, 3, 40)))
            else:
                unit[max(1, spot) :] = source.randbytes(len(unit) - max(1, spot))
            if len(unit) < 2:
                break
        found[place] = bytes(unit)
    body[begin:] = b"".join(u[:1] + _leb128(len(u) - 1) + u[1:] for u in found)


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


_CHANGES: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _set_byte, _set_byte, _flip_bit, _set_number, _set_number, _set_number, _splice, _cut, _append, _inside_zlib,
)  # fmt: skip


# ---- decoding ----------------------------------------------------------------------------------------------


def decode_unchecked(data: bytes, shape: tuple[int, ...] | None = None,
                     dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:  # fmt: skip
    """Decode without the test of `decoded_crc`; the result is little-endian."""
    return chunks.values_of(frame.unpack(data, shape, dtype))


def try_case(source: random.Random, base: Base, data: bytes) -> str:
    """Decode in one of several ways; return the outcome.

    Raises
    ------
    AssertionError
        An array of the wrong shape or dtype, or a partial read that is no slice of the whole.
    Exception
        Any other than `CorruptChunkError` is a bug.
    """
    way = source.random()
    try:
        if way < 0.6:
            check_array(decode_unchecked(data, base.shape, base.dtype), base.shape, base.dtype)
            return "array"
        if way < 0.7:
            check_array(chunks.decode_chunk(data, base.shape, base.dtype), base.shape, base.dtype)
            return "array, checksum right"
        if way < 0.8:
            selection = tuple(_selection(source, n) for n in base.shape)
            part = chunks.decode_region(data, selection, base.shape, base.dtype)
            expected = np.empty(base.shape, np.bool_)[selection].shape
            check_array(np.asarray(part), expected, base.dtype)
            if frame.unpack(data).mode == modes.SIREN.number:
                whole = decode_unchecked(data, base.shape, base.dtype)[selection]
                assert np.asarray(part, whole.dtype).tobytes() == whole.tobytes(), "a part is no slice of the whole"
            return "part"
        if way < 0.83:
            inside = chunks.decode_inside(data, base.shape, base.dtype)
            check_array(inside, base.shape, np.dtype(np.bool_))
            return "inside"
        parsed = frame.unpack(data)
        if way < 0.85:
            chunks.describe_chunk(data)
        if math.prod(parsed.shape) > SMALL:
            return "large shape, left"
        check_array(decode_unchecked(data), parsed.shape, parsed.dtype)
    except CorruptChunkError as error:
        return f"{type(error).__name__}: {error.field}{' by dav1d' * error.reason.startswith('dav1d')}"
    return "array, shape of its own"


def check_array(values: npt.NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check what the array would rely on."""
    assert isinstance(values, np.ndarray), type(values)
    assert values.shape == shape, (values.shape, shape)
    assert dtypes.little(values.dtype) == dtypes.little(dtype), (values.dtype, dtype)


def _selection(source: random.Random, n: int) -> int | slice:
    if n and source.random() < 0.3:
        return source.randrange(-n, n)
    ends = [None, *range(-n - 1, n + 2)]
    return slice(source.choice(ends), source.choice(ends), source.choice((None, 1, 2, -1, -2)))


def agree(decoder: ModuleType, data: bytes) -> str | None:
    """Return the outcome of both readers on a small frame, or None when its shape is large.

    `decoded_crc` is made right first, so that it settles nothing.
    """
    try:
        parsed = frame.unpack(data)
        if math.prod(parsed.shape) > SMALL:
            return None
        ours = chunks.values_of(parsed)
        at = frame.header_size(len(parsed.shape)) - 8
        right = struct.pack("<I", frame.crc_of(ours))
        data = reseal(data[:at] + right + data[at + 4 : -4])
        ours = chunks.decode_chunk(data)
    except CorruptChunkError as error:
        try:
            decoder.decode(data)
        except decoder.Invalid:
            return "both refuse"
        raise AssertionError(f"only the package refuses: {error}") from error
    theirs = decoder.decode(data)
    assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype), (theirs.shape, theirs.dtype)
    assert theirs.tobytes() == ours.tobytes(), "the readers decode to different values"
    return "both decode, equal bits"


# ---- the long run ------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    slowest: tuple[float, str, str] = (0.0, "", "")
    peak: int = 0
    apart: list[int] = field(default_factory=list)
    processes: int = 0
    said: str = ""


def chosen(mode: int | None = None, name: str = "") -> list[Base]:
    """Return the bases of one mode, or whose name begins so."""
    return [base for base in bases() if mode in (None, base.data[5]) and base.name.startswith(name)]


def cases(
    seed: int, count: int, mode: int | None = None, name: str = ""
) -> Iterator[tuple[random.Random, Base, bytes]]:
    """Yield a source of chance, a chosen base and its damaged frame, always the same for a seed."""
    known = chosen(mode, name)
    # Large frames take long and say no more than small ones; of transforms there are many.
    weights = [(0.3 if b.data[5] == modes.TRANSFORM.number else 1) / max(100, len(b.data)) for b in known]
    weights = [0.02 if b.name.startswith("av1-rich") else w for b, w in zip(known, weights, strict=True)]
    for index in range(count):
        source = random.Random(f"{seed}/{index}")  # noqa: S311
        base, other = source.choices(known, weights, k=2)
        yield source, base, damage(source, base.data, other.data)


def run(
    seed: int, count: int, say: Callable[[int], None] = lambda done: None, mode: int | None = None, name: str = ""
) -> Tally:
    """Try the cases."""
    tally = Tally()
    with Apart() as apart:
        for index, (source, base, data) in enumerate(cases(seed, count, mode, name)):
            if data[5:6] == bytes([modes.AV1.number]):
                _try_apart(tally, apart, f"{seed}/{index}", base, data, both=index % 100 == 0)
            else:
                _try_here(tally, source, f"{seed}/{index}", base, data, index)
            if index % 10_000 == 9_999:
                say(index + 1)
        tally.processes, tally.apart, tally.said = apart.started, apart.memory, apart.said
    return tally


def _try_apart(tally: Tally, apart: Apart, case: str, base: Base, data: bytes, *, both: bool) -> None:
    """Try a case in another process."""
    answer = apart.ask(frame=data.hex(), key=case, shape=base.shape, dtype=base.dtype.str, both=both)
    if "error" in answer:
        tally.failures.append({"case": case, "base": base.name, "error": answer["error"], "frame": data.hex()})
    if answer.get("both"):
        tally.readers[answer["both"]] += 1
    tally.outcomes[answer["outcome"]] += 1
    if answer["seconds"] > tally.slowest[0]:
        tally.slowest = (answer["seconds"], base.name, answer["outcome"])


def _try_here(tally: Tally, source: random.Random, case: str, base: Base, data: bytes, index: int) -> None:
    """Try a case in this process."""
    measured = index % 200 == 0
    if measured:
        tracemalloc.start()
    begin = time.process_time()
    try:
        outcome = try_case(source, base, data)
        took = time.process_time() - begin
        if index % 100 == 0 and (both := agree(reader(), data)):
            tally.readers[both] += 1
    except Exception as error:
        took = time.process_time() - begin
        outcome = f"FAILED: {type(error).__name__}"
        tally.failures.append({"case": case, "base": base.name, "error": repr(error)[:300],
                               "frame": data.hex()})  # fmt: skip
    if measured:
        tally.peak = max(tally.peak, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    tally.outcomes[outcome] += 1
    if took > tally.slowest[0] and not measured:
        tally.slowest = (took, base.name, outcome)


@cache
def reader() -> ModuleType:
    """Return specs/decoder.py."""
    spec = importlib.util.spec_from_file_location("inrstore_decoder", ROOT / "specs" / "decoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Run and write the results."""
    from tools.environment import describe

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--mode", choices=[mode.name for mode in modes.MODES])
    some.add_argument("--name", default="", choices=NAMES)
    options = parser.parse_args()
    number = next((mode.number for mode in modes.MODES if mode.name == options.mode), None)
    warnings.simplefilter("error")
    frames = len(chosen(number, options.name))
    begin = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def say(done: int) -> None:
        rate = done / (time.perf_counter() - begin)
        print(f"\r{done} of {options.cases} cases, {rate:.0f} a second", end="", file=sys.stderr, flush=True)

    tally = run(options.seed, options.cases, say, number, options.name)
    seconds = time.perf_counter() - begin
    good = not tally.failures and tally.slowest[0] <= SLOW
    by_error = Counter(outcome.split(":")[0] for outcome in tally.outcomes.elements())
    result: dict[str, Any] = {
        "cases": options.cases,
        "seed": options.seed,
        "frames": frames,
        "seconds": round(seconds, 1),
        "cases_per_second": round(options.cases / seconds),
        "failures": tally.failures[:20],
        "outcomes": dict(by_error.most_common()),
        "errors_by_field": dict(sorted((k, v) for k, v in tally.outcomes.items() if ":" in k)),
        "two_readers": dict(tally.readers),
        "slowest": dict(zip(("processor_seconds", "frame", "outcome"), tally.slowest, strict=True)),
        "peak_memory_of_a_case_bytes": tally.peak,
        "growth_of_the_process_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        **describe("google-crc32c", "hypothesis", "av"),
    }
    if tally.apart:
        result["apart"] = {
            "cases": len(tally.apart),
            "processes": tally.processes,
            "crashes": tally.outcomes["FAILED: crash"],
            "hangs": tally.outcomes["FAILED: hang"],
            "printed": tally.said,
            "most_memory_after_1000_cases_bytes": max(tally.apart[:1000]),
            "most_memory_bytes": max(tally.apart),
        }
    before_it = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if options.mode or options.name:
        result = before_it | {options.mode or options.name: result}
    else:
        kept = (*(mode.name for mode in modes.MODES), *NAMES)
        result |= {name: before_it[name] for name in kept if name in before_it}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{json.dumps(dict(by_error))} in {seconds:.0f} s, slowest {tally.slowest}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
