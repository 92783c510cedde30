"""Mode neural keeps every bit of whatever it takes, with any network, on every machine, and needs no more than said."""

from __future__ import annotations

import base64
import itertools
import json
import pickle
import struct
import time
import tracemalloc
from functools import cache

import google_crc32c
import numpy as np
import pytest
import zarr
from checks import check_equal_bits, decoder, examples, maker, random_values, run_python
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import frame
from inrstore.chunk.decode import decode_chunk, decode_region, describe_chunk
from inrstore.chunk.encode import encode_as, encode_chunks, seal
from inrstore.chunk.mask import narrow
from inrstore.chunk.modes import NEURAL
from inrstore.chunk.neural import encode as neural_encode
from inrstore.chunk.neural.neighbourhood import ERRORS, NEAR, PYRAMID, Neighbourhood, Volume, cube, fold
from inrstore.chunk.neural.network import Network, read_network
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import of
from inrstore.codecs import InrCodec, InrNumcodec
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError


def text_of(net: Network) -> str:
    """Return a network as it stands in a codec configuration."""
    return base64.b64encode(net.data).decode("ascii")


LOSSLESS = Target(lossless=True)
HELD = tuple("|i1 |u1 <i2 <u2 <i4 <u4 <f2 <f4 >i2 >u4 >f4".split())
NEIGHBOURHOODS = (cube(1), cube(2), cube(3), PYRAMID, Neighbourhood((1,)), Neighbourhood((2, 0, 3)))


@cache
def network(number: int, **fields) -> Network:
    """Return a random network."""
    return maker("neural").Net(
        seed=number, neighbourhood=NEIGHBOURHOODS[number % len(NEIGHBOURHOODS)], widths=((5,), (4, 3), ())[number % 3],
        spread=8, local=number % 4 != 3, **fields
    ).build()  # fmt: skip


def ct(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a smooth object with noise that varies: (.., z, y, x)."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in shape], indexing="ij")
    image = 900 * np.exp(-sum(a * a for a in axes)) * (1 + 0.3 * np.sin(7 * axes[-1]))
    return np.rint(image + rng.normal(0, 1, shape) * (2 + 6 * (axes[-1] > 0))).astype("<i2")


@cache
def good_network() -> Network:
    """Return the network without layers that predicts such objects best (least squares)."""
    image = ct((12, 40, 40), 9).astype(np.int64)
    image = (image - image.min())[None]
    neighbourhood = cube(1)
    volume = Volume(image.shape, neighbourhood)
    padded = volume.padded(image).reshape(-1)
    places = np.concatenate(list(volume.waves()))
    near = padded[volume.shifts(neighbourhood.offsets)[:, None] + places].astype(np.int64)
    mean = near[-4:].sum(0) >> 2
    found = np.linalg.lstsq((near - mean).T, padded[places] - mean, rcond=None)[0]
    weights = np.rint(found * 256).astype(np.int64)[None]
    return Network(neighbourhood, True, 3, 4000, (0,), (weights,), (np.zeros(1, np.int64),))


def coded(values: np.ndarray, net: Network, mask: np.ndarray | None = None, *, shared: bool = False) -> bytes | None:
    """Return the frame of the mode alone, however small the array is."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_encode, "SMALLEST", 1)
        core, around = envelopes.crop(little, mask)
        payload = neural_encode.encode(core, [net], around.mask, shared=shared)
    if payload is None:
        return None
    return seal(NEURAL, values, envelopes.write(around, values.shape) + payload, values)


# ---- every bit ---------------------------------------------------------------------------------------------


@st.composite
def arrays(draw) -> np.ndarray:
    """Return an array of a type that the mode may take, of one to five axes."""
    shape = draw(st.lists(st.sampled_from([1, 1, 2, 3, 5, 8, 13]), min_size=1, max_size=5).map(tuple))
    while np.prod(shape) > 1500:
        shape = shape[1:]
    kind = draw(st.sampled_from(["noise", "smooth", "few", "constant", "border", "holes"]))
    values = random_values(shape, draw(st.sampled_from(HELD)), draw(st.integers(0, 2**32)), kind)
    return np.asfortranarray(values) if draw(st.booleans()) else values


@given(arrays(), st.integers(0, 23), st.booleans())
@examples(120)
def test_every_bit_is_kept_by_any_network_in_both_readers(values, number, shared):
    net = network(number)
    data = coded(values, net, shared=shared)
    if data is None:
        assert values.dtype.itemsize == 4  # a range above 65535 is left to other modes
        return
    known = of(net.data) if shared else None
    assert describe_chunk(data).mode == "neural"
    check_equal_bits(decode_chunk(data, values.shape, values.dtype, known), values)
    check_equal_bits(decoder().decode(data, shared=(net.data,) if shared else ()), values)


@pytest.mark.parametrize("shape", [(7000,), (1, 8000), (70, 90), (1, 1, 60, 50), (30, 1, 12, 7), (2, 3, 4, 10, 12),
                                   (40, 9, 9)])  # fmt: skip
def test_every_shape_is_kept(shape):
    walk = np.cumsum(np.random.default_rng(1).integers(-3, 4, int(np.prod(shape)))).reshape(shape).astype("<i4")
    for number in (0, 2):
        check_equal_bits(decode_chunk(coded(walk, network(number))), walk)


def test_the_whole_range_of_a_type_is_kept():
    rng = np.random.default_rng(3)
    for dtype in HELD:
        wide = np.frombuffer(rng.bytes(3000 * np.dtype(dtype).itemsize), dtype).reshape(10, 15, 20)
        data = coded(wide, network(0))
        assert (data is None) == (np.dtype(dtype).itemsize == 4)
        if data is not None:
            check_equal_bits(decode_chunk(data), wide)


def test_a_mask_and_a_border_are_kept():
    values = ct((6, 20, 22))
    values[:, :3], values[:, :, 20:] = 7, 7
    check_equal_bits(decode_chunk(coded(values, good_network())), values)
    inside = narrow(ct((6, 20, 22), 1) > 300, values.shape)
    masked = np.where(inside, values, 0).astype(values.dtype)
    check_equal_bits(decode_chunk(coded(masked, good_network(), inside)), masked)


def test_what_the_mode_does_not_hold_is_left_to_others():
    for dtype in ("<i8", "<u8", "<f8", "|b1"):
        assert coded(random_values((9, 9, 9), dtype, 1, "smooth"), network(0)) is None
    assert coded(np.zeros((100_000,), "<i2"), network(0)) is None  # a step for each value would take too long
    assert encode_as(NEURAL, ct((5, 10, 10)), shared=of(network(0).data)) is None  # a few values are not worth a try


def test_measurements_do_not_see_each_other():
    values = np.stack([ct((4, 12, 13), seed) for seed in range(5)])
    sizes = [len(coded(values[i : i + 1], good_network())) for i in range(5)]
    together = coded(values, good_network())
    check_equal_bits(decode_chunk(together), values)
    assert len(together) < sum(sizes)


# ---- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "neighbourhood",
    [*NEIGHBOURHOODS, cube(4), cube(5), Neighbourhood((1, 6)), Neighbourhood((1, 0, 6)), Neighbourhood((6,) * 6)],
)
@pytest.mark.parametrize("lengths", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 4, 7, 2), (1, 5, 1, 3), (3, 1, 6, 1)])
def test_steps_hold_every_value_once_after_all_its_neighbours(neighbourhood, lengths):
    volume = Volume(lengths, neighbourhood)
    done = np.zeros(volume.shape, np.bool_)
    inside = np.zeros(volume.shape, np.bool_)
    volume.inside(inside)[...] = True
    shifts = volume.shifts((*neighbourhood.offsets, *NEAR, *ERRORS))[:, None]
    for places in volume.waves():
        needed = shifts + places
        assert (done.reshape(-1)[needed] | ~inside.reshape(-1)[needed]).all()
        assert not done.reshape(-1)[places].any() and inside.reshape(-1)[places].all()
        done.reshape(-1)[places] = True
    assert (done == inside).all()


def test_the_neighbourhoods_of_the_literature_have_their_sizes():
    assert len(cube(5).offsets) == (11**3 - 1) // 2 == 665
    assert len(PYRAMID.offsets) == 84 + 81 + 25 + 1
    assert (cube(5).slopes, PYRAMID.slopes) == ((6, 36), (7, 33))


# ---- networks ----------------------------------------------------------------------------------------------


def test_a_network_comes_back_from_its_bytes():
    for number in range(12):
        net = network(number)
        again = read_network(net.data)
        assert (again.digest, again.neighbourhood, again.shifts, again.local) == (
            net.digest,
            net.neighbourhood,
            net.shifts,
            net.local,
        )
        for one, other in zip((*again.weights, *again.biases), (*net.weights, *net.biases), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_shared_network_costs_a_chunk_its_digest_alone():
    values, net = ct((5, 20, 20)), network(1)
    here, shared = coded(values, net), coded(values, net, shared=True)
    assert len(here) - len(shared) == 4 + len(net.data) - 32
    assert describe_chunk(shared).details == {"shared": net.digest.hex()}
    assert describe_chunk(here).details["parameters"] == net.parameters
    other = network(2)
    for known in (None, {}, of(other.data)):
        with pytest.raises(CorruptChunkError, match=r"neural.digest.*no network") as caught:
            decode_chunk(shared, shared=known)
        assert caught.value.field == "neural.digest"


def test_the_smaller_frame_is_kept_and_nothing_changes_without_shared_networks():
    values = ct((12, 40, 40))
    plain = encode_chunks([values], LOSSLESS)[0]
    bad, good = network(0), good_network()
    assert encode_chunks([values], LOSSLESS, shared=of(bad.data))[0] == plain
    data = encode_chunks([values], LOSSLESS, shared=of(bad.data, good.data))[0]
    assert len(data) < len(plain)
    assert describe_chunk(data).details == {"shared": good.digest.hex()}
    check_equal_bits(decode_chunk(data, shared=of(good.data)), values)


# ---- codecs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_decodes_chunks_that_name_a_shared_network(tmp_path, zarr_format):
    values, net = ct((12, 40, 80)), good_network()
    codec = (InrCodec if zarr_format == 3 else InrNumcodec)(lossless=True, shared=[net.data])
    how = {"serializer": codec, "compressors": None} if zarr_format == 3 else {"compressors": codec}
    zarr.create_array(tmp_path, data=values, chunks=(12, 40, 40), zarr_format=zarr_format, **how)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("zarr.json", ".zarray", ".zattrs")]
    assert net.digest.hex() in {describe_chunk(p.read_bytes()).details.get("shared") for p in files}
    again = zarr.open_array(tmp_path, mode="r")
    np.testing.assert_array_equal(again[...], values)
    np.testing.assert_array_equal(again[2, 5:9, 31], values[2, 5:9, 31])


@pytest.mark.parametrize("codec", [InrCodec, InrNumcodec])
def test_shared_parameters_are_stored_and_come_back(codec):
    net = network(0)
    made = codec(lossless=True, shared=[net])
    for other in (codec(lossless=True, shared=[net.data]), codec(lossless=True, shared=[text_of(net)]),
                  pickle.loads(pickle.dumps(made))):  # fmt: skip
        assert other == made
    stored = made.to_dict()["configuration"] if codec is InrCodec else made.get_config()
    assert json.loads(json.dumps(stored))["shared"] == [text_of(net)]
    stored = json.loads(json.dumps(stored))
    assert made == (
        InrCodec.from_dict({"name": "inrstore", "configuration": stored})
        if codec is InrCodec
        else InrNumcodec.from_config(stored)
    )


@pytest.mark.parametrize("codec", [InrCodec, InrNumcodec])
def test_wrong_shared_parameters_are_refused_by_name(codec):
    text = text_of(network(0))
    for shared in ("abc", 3, [3], ["?"], ["AAAA"], [text[:-8]], [b""], [text] * 9, ["A" * 4_000_000]):
        with pytest.raises(ConfigurationError, match="shared"):
            codec(lossless=True, shared=shared)
    for promise in ({"rmse": 3.0}, {"max_error": 2}):
        with pytest.raises(ConfigurationError, match="shared"):
            codec(**promise, shared=["AAAA"])


@pytest.mark.parametrize("codec", [InrCodec, InrNumcodec])
@pytest.mark.parametrize("promise", [{"rmse": 3.0}, {"max_error": 2}])
def test_shared_parameters_go_with_every_promise(codec, promise):
    made = codec(**promise, shared=[good_network()])
    assert made == pickle.loads(pickle.dumps(made))
    frames = encode_chunks([ct((12, 40, 40))], Target(**promise), shared=of(good_network().data))
    assert frames == encode_chunks([ct((12, 40, 40))], Target(**promise))


def test_a_part_is_the_slice_of_the_whole():
    values, net = ct((4, 6, 20, 22)), good_network()
    data = coded(values, net, shared=True)
    for selection in ((0, slice(None), 3, slice(2, 9)), (slice(None, None, 2), 1, slice(5, 6), -1)):
        found = decode_region(data, selection, shared=of(net.data))
        check_equal_bits(np.asarray(found), np.asarray(values[selection]))


# ---- machines ----------------------------------------------------------------------------------------------


def extreme(seed: int, neighbourhood: Neighbourhood, widths: tuple[int, ...], local: bool = True) -> Network:
    """Return a network whose sums come as close to 2^24 as they may."""
    rng, sizes, weights, biases = np.random.default_rng(seed), [len(neighbourhood.offsets), *widths, 1], [], []
    for number, (a, b) in enumerate(itertools.pairwise(sizes)):
        most = 1023 if number else 2047
        w = np.rint(rng.normal(0, 1, (b, a)) * 2**24 / (a * most * 0.9)).clip(-1023, 1023).astype(np.int64)
        share = (2**24 - 1) / (np.abs(w).sum(1) * most)
        w = np.trunc(w * np.minimum(1, share)[:, None]).astype(np.int64)
        weights.append(w)
        biases.append(2**24 - 1 - np.abs(w).sum(1) * most)
    made = Network(neighbourhood, local, 3, 2047, (12,) * len(widths) + (4,), tuple(weights), tuple(biases))
    made.check()
    return made


_DECODE = """
import hashlib, sys
from inrstore.chunk.decode import decode_chunk
total = hashlib.sha256()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        total.update(decode_chunk(file.read()).tobytes())
print(total.hexdigest())
"""


def test_bits_are_equal_for_every_kernel_and_number_of_threads(tmp_path):
    wild = np.random.default_rng(8).integers(0, 65536, (3, 24, 40)).astype("<u2")
    nets = [extreme(0, cube(2), (300, 200)), extreme(1, PYRAMID, (64,), local=False), extreme(2, cube(1), (9, 9))]
    for i, net in enumerate(nets):
        data = coded(wild, net)
        (tmp_path / f"{i}.chunk").write_bytes(data)
        check_equal_bits(decoder().decode(data), wild)
    paths = [str(p) for p in sorted(tmp_path.glob("*.chunk"))]
    answers = {run_python(_DECODE, *paths, OPENBLAS_CORETYPE=kernel, OPENBLAS_NUM_THREADS=threads)
               for kernel, threads in itertools.product(("Haswell", "SkylakeX", "Sandybridge"), "12")}  # fmt: skip
    assert len(answers) == 1


# ---- damage ------------------------------------------------------------------------------------------------


def resealed(body: bytes) -> bytes:
    """Return a frame with right checksums of itself and length of its payload."""
    head = frame.header_size(body[7])
    body = body[: head - 4] + struct.pack("<I", len(body) - head) + body[head:]
    return body + struct.pack("<I", int(google_crc32c.value(body)))


@cache
def whole_frame() -> bytes:
    """Return a frame to damage."""
    return coded(ct((4, 9, 11)), network(1))


def test_truncations_are_refused():
    body = whole_frame()[:-4]
    for size in range(frame.header_size(3), len(body), 3):
        with pytest.raises(CorruptChunkError):
            decode_chunk(resealed(body[:size]))


def test_changed_bytes_are_refused_by_both_readers_or_change_nothing():
    rng, body, values, refused = np.random.default_rng(2), whole_frame()[:-4], ct((4, 9, 11)), 0
    begin = frame.header_size(3)
    for place in [*range(begin, begin + 60), *rng.integers(begin, len(body), 200).tolist()]:
        value = bytes([body[place] ^ int(rng.integers(1, 256))])
        changed = resealed(body[:place] + value + body[place + 1 :])
        try:  # a limit that nothing reaches may be another
            check_equal_bits(decode_chunk(changed), values)
            check_equal_bits(decoder().decode(changed), values)
        except CorruptChunkError:
            refused += 1
            with pytest.raises(decoder().Invalid):
                decoder().decode(changed)
    assert refused > 220


def test_a_small_frame_cannot_ask_for_much():
    body = whole_frame()[:-4]
    for shape in ((1, 1, 1 << 27), (1 << 27, 1, 1), (1 << 13, 1 << 7, 1 << 7), (512, 512, 512)):
        changed = resealed(body[:8] + struct.pack("<3I", *shape) + body[20:])
        started = time.perf_counter()
        tracemalloc.start()
        with pytest.raises(CorruptChunkError):
            decode_chunk(changed)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.perf_counter() - started < 10
        # What the output takes, twice over for values and errors, and no more.
        assert peak < 4.6 * max(1 << 20, int(np.prod(shape))) + (8 << 20), shape


def test_limits_hold_for_writers_too():
    for radii in ((), (0,), (7,), (1,) * 7, (1, 9)):
        with pytest.raises(LimitExceededError):
            Neighbourhood(radii)
    with pytest.raises(LimitExceededError, match="steps"):
        Volume(fold((300_000,)), cube(1))
    net = good_network()
    with pytest.raises(LimitExceededError, match="float32"):
        Network(net.neighbourhood, True, 3, 16383, (0,), (net.weights[0] * 4,), net.biases).check()
