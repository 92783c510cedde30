"""Chunks of one image that keep its quality together: one step for all, and one header where that is smaller."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import xarray
import zarr
from common import AFFINE

import inrstore
from inrstore.chunk import modes, quality
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks, encode_together
from inrstore.chunk.quality import Target, rmse
from inrstore.chunk.shared import of
from inrstore.cli import output
from inrstore.errors import ConfigurationError, CorruptChunkError, StoreError
from inrstore.options import EncodeOptions
from inrstore.store.layout import choose_chunks, image_dims
from inrstore.store.options import chunks_of
from inrstore.store.reader import Store

pytestmark = pytest.mark.fit
TRANSFORM = EncodeOptions(mode="transform")


def scan(shape=(6, 24, 40, 40), seed=0):
    """A smooth image with noise that grows along z, so that chunks differ in what they need."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[-3:]), indexing="ij")
    base = 800 * np.exp(-sum((g - 0.5) ** 2 for g in grids) * 4) + 100 * np.sin(9 * grids[1] + 4 * grids[2])
    values = np.stack([base * (1 + 0.3 * np.cos(k)) for k in range(shape[0])]) if len(shape) == 4 else base
    noise = rng.normal(0, 1, shape) * (2 + 60 * grids[0] ** 3)
    return np.rint(values + noise).astype(np.int16)


def cut(image, pieces, axis=-3):
    return [np.ascontiguousarray(p) for p in np.split(image, pieces, axis)]


def total_error(chunks, frames, shared=None):
    squares = sum(
        ((decode_chunk(f, shared=shared).astype(float) - c) ** 2).sum() for c, f in zip(chunks, frames, strict=True)
    )
    return math.sqrt(squares / sum(c.size for c in chunks))


def test_chunks_keep_a_target_together_in_fewer_bytes_than_each_alone():
    chunks, target = cut(scan(), 4), Target(rmse=8.0)
    made = encode_together(chunks, target, TRANSFORM)
    shared = of(*made.parameters)
    assert {describe_chunk(f).mode for f in made.frames} == {"transform"}
    assert 0.99 * target.rmse < total_error(chunks, made.frames, shared) <= target.rmse
    each = [rmse(c, decode_chunk(f, shared=shared), target) for c, f in zip(chunks, made.frames, strict=True)]
    assert max(each) > 1.05 * target.rmse and made.worst == pytest.approx(max(each) / target.rmse)
    alone = encode_chunks(chunks, target, TRANSFORM)
    assert sum(map(len, made.frames)) + sum(map(len, made.parameters)) < 0.97 * sum(map(len, alone))


def test_the_number_of_threads_changes_no_bytes():
    chunks, target = cut(scan(), 4), Target(rmse=10.0)
    one, three = (encode_together(chunks, target, EncodeOptions(mode="transform", threads=n)) for n in (1, 3))
    assert one == three


def test_a_shared_header_is_named_and_needed():
    chunks = cut(scan((12, 24, 24, 24)), 6)
    made = encode_together(chunks, Target(rmse=30.0), TRANSFORM)
    assert len(made.parameters) == 1
    names = {describe_chunk(f).details["shared"] for f in made.frames}
    shared = of(*made.parameters)
    assert names == {next(iter(shared))[:8].hex()}
    assert describe_chunk(made.frames[0], shared).details["components"] >= 1
    with pytest.raises(CorruptChunkError) as caught:
        decode_chunk(made.frames[0])
    assert caught.value.field == "transform.digest"
    modes.check_shared(shared)
    for broken in (made.parameters[0][:-1], made.parameters[0] + b"\0", b"\x54" + bytes(40)):
        with pytest.raises(ConfigurationError, match="a parameter of no mode"):
            modes.check_shared(of(broken))


@pytest.mark.parametrize("change", ["measurements", "kind of values", "levels"])
def test_a_shared_header_of_another_image_is_refused(change):
    shape = {"measurements": (4, 8, 16, 16), "kind of values": (6, 8, 16, 16), "levels": (6, 1, 16, 16)}[change]
    one = encode_together(cut(scan((6, 24, 40, 40)), 4), Target(rmse=30.0), TRANSFORM)
    assert one.parameters
    frame = bytearray(one.frames[0])
    code = {"kind of values": 1}.get(change, frame[6])
    frame[6] = code
    frame[8:24] = np.array(shape, "<u4").tobytes()
    import google_crc32c

    frame[-4:] = google_crc32c.value(bytes(frame[:-4])).to_bytes(4, "little")
    with pytest.raises(CorruptChunkError):
        decode_chunk(bytes(frame), shared=of(*one.parameters))


def test_constant_and_small_chunks_are_coded_alone():
    chunks = cut(scan(), 4)
    chunks[0] = np.full_like(chunks[0], 7)
    chunks[3] = np.where(np.arange(40) < 3, chunks[3], 7).astype(np.int16)
    target = Target(rmse=8.0)
    made = encode_together(chunks, target, TRANSFORM)
    shared = of(*made.parameters)
    assert describe_chunk(made.frames[0], shared).mode == "constant"
    assert rmse(chunks[3], decode_chunk(made.frames[3], shared=shared), target) <= target.rmse
    for chunk, frame in zip(chunks, made.frames, strict=True):
        assert decode_chunk(frame, shared=shared).shape == chunk.shape


@pytest.mark.parametrize("dtype", ["i2", "f4", "f8", "u1"])
def test_masks_and_values_that_are_not_finite_are_kept(dtype):
    image = np.clip(scan(), 0, 250).astype(dtype)
    if image.dtype.kind == "f":
        image[2, 3, 4, 5], image[0, 20, 1, 2] = np.nan, np.inf
    inside = np.hypot(*np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40))) < 0.9
    masks = [np.broadcast_to(inside, (1, 6, 40, 40)).copy() for _ in range(4)]
    chunks, target = cut(image, 4), Target(rmse=8.0)
    made = encode_together(chunks, target, TRANSFORM, masks=masks)
    shared = of(*made.parameters)
    squares = count = 0.0
    for chunk, frame in zip(chunks, made.frames, strict=True):
        decoded = decode_chunk(frame, shared=shared)
        where = np.broadcast_to(inside, chunk.shape)
        assert not decoded[~where].any()
        odd = ~np.isfinite(chunk) & where
        assert decoded[odd].tobytes() == chunk[odd].tobytes()
        fine = where & np.isfinite(chunk)
        squares += ((decoded[fine].astype(float) - chunk[fine].astype(float)) ** 2).sum()
        count += fine.sum()
    assert math.sqrt(squares / count) <= target.rmse * (1 + 1e-9)


def test_slabs_of_one_channel_share_a_quantiser_of_av1():
    pytest.importorskip("av")
    chunks, target = cut(scan((24, 80, 80)), 2), Target(rmse=12.0)
    made = encode_together(chunks, target, EncodeOptions(mode="av1", preset="fast"))
    assert {describe_chunk(f).mode for f in made.frames} == {"av1"} and not made.parameters
    assert 0.97 * target.rmse < total_error(chunks, made.frames) <= target.rmse


def test_progress_is_told_while_chunks_are_looked_for():
    seen = []
    encode_together(cut(scan(), 4), Target(rmse=8.0), TRANSFORM, seen.append)
    fractions = [step.fraction for step in seen]
    assert len(fractions) > 4 and fractions == sorted(fractions) and fractions[-1] == 1


@pytest.mark.parametrize("ending", ["ozx", "zarr"])
@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_store_with_a_shared_header_opens_anywhere(tmp_path, ending, zarr_format):
    if (ending, zarr_format) == ("ozx", 2):
        pytest.skip("a zipped OME-Zarr is of Zarr format 3")
    image = scan((12, 24, 24, 24))
    nib.save(nib.Nifti1Image(image.T, AFFINE), tmp_path / "a.nii")
    store = tmp_path / f"a.{ending}"
    report = inrstore.convert(tmp_path / "a.nii", store, psnr=30, mode="transform", chunks=(4, 24, 24),
                              zarr_format=zarr_format)  # fmt: skip
    assert report.chunks == 6 and report.psnr >= 30
    opened = Store(store)
    assert opened.shared and inrstore.verify(store, tmp_path / "a.nii").psnr == report.psnr
    promised = next(d for d in opened.documents if d.endswith(("image/zarr.json", "image/.zarray")))
    document = json.loads(opened.documents[promised])
    codec = document["codecs"][0]["configuration"] if zarr_format == 3 else document["compressor"]
    for index in opened.grid:
        region = opened.grid.region(index)
        error = opened.chunk(index).astype(float) - image[region]
        assert math.sqrt((error**2).mean()) <= codec["rmse"] * (1 + 1e-12)
    decoded = inrstore.open(store).image.values
    where = f"zip::{store}" if ending == "ozx" else store
    plain = xarray.open_zarr(where, zarr_format=zarr_format).image.values
    assert plain.tobytes() == decoded.tobytes()
    if ending == "ozx":
        group = zarr.open_group(zarr.storage.ZipStore(store, mode="r"), mode="r")
        assert group["image"][3, 7].tobytes() == decoded[3, 7].tobytes()
    inrstore.export(store, tmp_path / "back.nii")
    assert np.asarray(nib.load(tmp_path / "back.nii").dataobj).T.tobytes() == decoded.tobytes()
    info = inrstore.info(store)
    assert info.chunk_shape == (12, 4, 24, 24) and {c["shared"] for c in info.chunk_list} == {
        next(iter(opened.shared))[:8].hex()
    }


def test_info_counts_a_shared_network_once(tmp_path, capsys):
    image = scan((12, 24, 24, 24))
    chunk = {"mode": "transform", "bytes": 99, "shared": "ab", "network": "8 sine", "network_bytes": 500}
    nib.save(nib.Nifti1Image(image.T, AFFINE), tmp_path / "a.nii")
    inrstore.convert(tmp_path / "a.nii", tmp_path / "a.ozx", psnr=30, mode="transform", preset="fast")
    report = replace(inrstore.info(tmp_path / "a.ozx"), chunk_list=tuple({**chunk, "key": str(k)} for k in range(3)))
    output.show(report, as_json=False)
    assert "8 sine units in 3 chunks, 500 bytes that they share" in capsys.readouterr().out


def test_a_store_whose_shared_header_is_none_is_refused(tmp_path):
    image = scan((12, 24, 24, 24))
    nib.save(nib.Nifti1Image(image.T, AFFINE), tmp_path / "a.nii")
    inrstore.convert(tmp_path / "a.nii", tmp_path / "a.zarr", psnr=30, mode="transform", chunks=(4, 24, 24))
    text = (tmp_path / "a.zarr/zarr.json").read_text()
    shared = json.loads(text)["consolidated_metadata"]["metadata"]["image"]["codecs"][0]["configuration"]["shared"][0]
    (tmp_path / "a.zarr/zarr.json").write_text(text.replace(shared, "AAAA" + shared[4:]))
    with pytest.raises(StoreError, match="changed"):
        inrstore.verify(tmp_path / "a.zarr")


@pytest.mark.parametrize(("asked", "found"), [
    ("auto", "auto"), ("whole", "whole"), ("8,256,256", (8, 256, 256)), ((4, 5), (4, 5)), ([np.int64(3)], (3,)),
])  # fmt: skip
def test_chunks_are_asked_for_by_word_or_by_length(asked, found):
    assert chunks_of(asked) == found


@pytest.mark.parametrize("asked", ["", "all", "8,", "8,256,256,2", "0,4,4", (4, -1), (2.5,), None, 7, ("a",)])
def test_other_chunks_are_refused(asked):
    with pytest.raises(ConfigurationError, match="chunks must be auto, whole, or lengths"):
        chunks_of(asked)


def test_lengths_of_chunks_are_those_of_space():
    dims = image_dims(4)
    assert choose_chunks((33, 28, 128, 128), dims, asked=(7, 128, 128)) == (33, 7, 128, 128)
    assert choose_chunks((33, 28, 128, 128), dims, asked=(64,)) == (33, 28, 128, 64)
    assert choose_chunks((33, 28, 128, 128), dims, 1 << 22, "whole") == (33, 28, 128, 128)
    with pytest.raises(ConfigurationError, match="have 81768960 values; the most is 67108864"):
        choose_chunks((105, 72, 104, 104), dims, asked=(72, 104, 104))


def test_an_image_of_one_measurement_has_chunks_that_are_read_in_a_moment(tmp_path):
    image = np.zeros((96, 256, 256), np.uint8)
    image[10:80, 30:200, 40:180] = 9
    image[40, 50, 60] = 200
    nib.save(nib.Nifti1Image(image.T, AFFINE), tmp_path / "a.nii")
    report = inrstore.convert(tmp_path / "a.nii", tmp_path / "a.ozx", psnr=30, mode="transform", preset="fast")
    assert report.chunks == 2
    whole = inrstore.convert(
        tmp_path / "a.nii", tmp_path / "b.ozx", psnr=30, mode="transform", preset="fast", chunks="whole"
    )
    assert whole.chunks == 1


@pytest.mark.parametrize("shape", [(100_000,), (50_000, 2), (3, 40, 900)])
def test_an_error_is_summed_up_in_few_pieces_whatever_the_shape(shape, monkeypatch):
    values = np.random.default_rng(0).integers(-500, 500, shape).astype("<i2")
    calls = []
    monkeypatch.setattr(quality, "sum_of_squares", lambda error: calls.append(1) or float(np.sum(error**2)))
    assert rmse(values, values + 3, Target(rmse=1)) == 3
    assert len(calls) < 50
