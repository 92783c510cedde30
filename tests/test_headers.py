"""Headers, real and made to be odd, come back from a lossless store without an unexplained byte."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from archives import unpacked
from common import DATA

from inrstore.errors import SourceError
from inrstore.sources import is_image, read_source, store_name
from inrstore.store.convert import convert_image
from inrstore.store.export import export
from inrstore.store.options import Options
from inrstore.store.quality import Quality

NIBABEL = Path(nib.__file__).parent / "tests/data"
NAN = float("nan")


def header(version=1, order="<", dtype="int16", shape=(5, 4, 3), pair=False, **fields):
    """Return the bytes of a header, any field set to anything, and its values' dtype."""
    made = (nib.Nifti1Header, nib.Nifti2Header)[version - 1](endianness=order)
    made.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    made.set_data_shape(shape)
    made["pixdim"][1:5] = 2, 2.5, 3, 1.5
    made["vox_offset"] = 0 if pair else (352, 544)[version - 1]
    if pair:
        made["magic"] = (b"ni1", b"ni2\0\r\n\x1a\n")[version - 1]
    for name, value in fields.items():
        if isinstance(value, dict):
            for index, item in value.items():
                made[name][index] = item
        else:
            made[name] = value
    return made.binaryblock


def voxels(dtype="int16", order="<", shape=(5, 4, 3)):
    rng = np.random.default_rng(len(shape))
    values = rng.integers(0, 100, int(np.prod(shape)))
    return values.astype(np.dtype(dtype).newbyteorder(order)).tobytes()


def single(*, name="a.nii", between=b"\0\0\0\0", after=b"", packed=None, **options):
    """Return one file: header, what is between it and the voxels, voxels, what follows."""
    kind = {key: options[key] for key in ("dtype", "order", "shape") if key in options}
    data = header(**options) + between + voxels(**kind) + after
    if packed is not None:
        return {"a.nii.gz": packed(data)}
    return {name: data}


def pair(*, between=b"", leading=b"", after=b"", packed=False, **options):
    kind = {key: options[key] for key in ("dtype", "order", "shape") if key in options}
    files = {"a.hdr": header(pair=True, vox_offset=len(leading), **options) + between,
             "a.img": leading + voxels(**kind) + after}  # fmt: skip
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files


def extension(code, data):
    data += bytes(-(len(data) + 8) % 16)
    return np.array([len(data) + 8, code], "<i4").tobytes() + data


def extended(*parts, pad=b"", version=1):
    """Return options of a single file with extensions."""
    between = b"\1\0\0\0" + b"".join(parts) + pad
    return {"between": between, "vox_offset": (348, 540)[version - 1] + len(between), "version": version}


DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
COMMENT, BINARY = extension(6, b"a comment"), extension(9999, bytes(range(256)))

CASES = {
    **{f"{dtype} v{n % 2 + 1} {order}": single(dtype=dtype, version=n % 2 + 1, order=order)
       for n, dtype in enumerate(DTYPES) for order in "<>"},
    **{f"{n} axes": single(shape=(4, 3, 5, 2, 3, 2, 2)[:n], version=1 + n % 2) for n in range(1, 8)},
    "axes of length 1": single(shape=(1, 5, 1, 1)),
    "axes of length 1 at the end": single(shape=(3, 4, 2, 1, 1, 1, 1)),
    "lengths beyond the last axis": single(dim={4: 7, 5: -1, 6: 0}),
    "one extension": single(**extended(COMMENT)),
    "three extensions": single(**extended(COMMENT, BINARY, COMMENT)),
    "an extension, NIfTI-2": single(**extended(BINARY, version=2)),
    "an extension and padding": single(**extended(COMMENT, pad=b"pad " * 50)),
    "padding that is no extension": single(between=b"\0\0\0\0" + b"notes" * 100, vox_offset=852),
    "an extender with all bytes set": single(between=b"\0\1\2\3"),
    "an extension of a size that cannot be": single(between=b"\1\0\0\0" + b"\xff" * 16, vox_offset=368),
    **{f"intent {code}": single(intent_code=code, intent_p1=1.5, intent_name=b"named")
       for code in (2, 1001, 1002, 1007)},
    **{f"qform {q} sform {s}": single(qform_code=q, sform_code=s, srow_x=[2, 0, 0, 1], srow_y=[0, 2, 0, 1],
                                      srow_z=[0, 0, 3, 1], quatern_b=0.1, qoffset_x=-90)
       for q, s in ((0, 0), (1, 0), (0, 2), (1, 4), (4, 3))},
    "qfac -1": single(qform_code=1, pixdim={0: -1}),
    "steps of 0 and below": single(pixdim={1: 0, 2: -2}),
    **{f"slope {slope} inter {inter}": single(scl_slope=slope, scl_inter=inter)
       for slope, inter in ((0, 0), (0, 5), (0, NAN), (1, 0), (2.5, -1024), (-0.5, 0), (1e-30, 1e30),
                                (NAN, NAN), (NAN, 5), (float("inf"), 0), (float("-inf"), 2))},
    **{f"units {units}": single(shape=(3, 3, 2, 4), xyzt_units=units) for units in (0, 2, 1 | 16, 3 | 24, 10, 2 | 32)},
    "window and time": single(cal_max=100, cal_min=-5, toffset=3.5, slice_duration=0.1, slice_code=3, slice_end=2),
    "frequency, phase, slice": single(dim_info=57),
    "texts that are no text": single(descrip=b"\xff\xfe caf\xe9 \x01", aux_file=b"a/b\\c"),
    "fields that nobody uses": single(data_type=b"junk", db_name=b"secret", extents=16384, session_error=7,
                                      regular=b"r", glmax=255, glmin=-1),
    "unused bytes of NIfTI-2": single(version=2, unused_str=b"not unused"),
    "one byte after the voxels": single(after=b"\n"),
    "a thousand bytes after the voxels": single(after=bytes(range(250)) * 4),
    "bytes after the voxels, packed": single(after=b"tail", packed=gzip.compress),
    "packed in two members": single(packed=lambda data: gzip.compress(data[:400]) + gzip.compress(data[400:])),
    "packed without compression": single(packed=lambda data: gzip.compress(data, 0)),
    "a pair": pair(),
    "a pair, packed": pair(packed=True),
    "a pair, NIfTI-2, other order": pair(version=2, order=">"),
    "a pair with an extension": pair(between=b"\1\0\0\0" + COMMENT),
    "a pair with bytes before its voxels": pair(leading=b"sixteen bytes : "),
    "a pair with bytes after its voxels": pair(after=b"tail", dtype="float32"),
    "a pair of a single volume in 4-D": pair(shape=(4, 4, 2, 1)),
}  # fmt: skip

REFUSED = {
    "scl_inter": single(scl_slope=2, scl_inter=float("inf")),
    "qform": single(qform_code=1, pixdim={0: 7}),
    "srow_x": single(sform_code=1, srow_x=[NAN, 0, 0, 0]),
    "pixdim[1]": single(pixdim={1: NAN}),
    "xyzt_units": single(xyzt_units=255),
    "magic": {"a.hdr": header(pair=True, magic=b""), "a.img": voxels()},
}  # fmt: skip
"""Headers by the field for which they are refused: what they say cannot be understood, or is forbidden."""


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("slope ")])
def test_slope_and_intercept_are_read_as_nibabel_reads_them(tmp_path, name):
    (tmp_path / "a.nii").write_bytes(CASES[name]["a.nii"])
    source, loaded = read_source(tmp_path / "a.nii"), nib.load(tmp_path / "a.nii")
    slope, inter = nib.Nifti1Header(source.header[:348]).get_slope_inter()
    assert (source.slope, source.inter) == (1.0 if slope is None else slope, 0.0 if inter is None else inter)
    assert np.array_equal(source.voxels.T * source.slope + source.inter, loaded.get_fdata())


def real_files():
    """Return real files: the scans, and those that nibabel's tests bring along."""
    found = sorted(DATA.glob("sub-*/*/*.nii.gz"))
    return found + sorted(path for path in NIBABEL.glob("*.nii*"))


def come_back(folder: Path, main: Path, promise: Quality) -> Path:
    """Convert an image and export it again, under its name."""
    convert_image(read_source(main), str(folder / "store.zarr"), Options(quality=promise))
    out = folder / "out"
    out.mkdir()
    export(folder / "store.zarr", out / main.name)
    return out


def test_there_are_enough_of_them():
    assert len(CASES) >= 70 and len(list(NIBABEL.glob("*.nii*"))) >= 5
    assert all(any(map(is_image, files)) for files in CASES.values())


@pytest.mark.parametrize("files", CASES.values(), ids=CASES.keys())
def test_every_byte_comes_back(tmp_path, files):
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    main = tmp_path / "in" / next(iter(files))
    assert store_name(main.name) == "a.zarr"
    out = come_back(tmp_path, main, Quality(lossless=True))
    assert unpacked(out) == unpacked(tmp_path / "in")


@pytest.mark.parametrize("field, files", REFUSED.items(), ids=REFUSED.keys())
def test_what_does_not_come_back_is_refused_with_its_field(tmp_path, field, files):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    main = tmp_path / next(iter(files))
    with pytest.raises(SourceError, match=re.escape(field)) as caught:
        read_source(main)
    assert main.name in str(caught.value)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [1, 2])
def test_labels_are_known_by_their_header(tmp_path, version, order):
    for intent in (0, 1001, 1002):
        (data,) = single(version=version, order=order, intent_code=intent, vox_offset=(352, 544)[version - 1]).values()
        (tmp_path / "a.nii").write_bytes(data)
        assert read_source(tmp_path / "a.nii").labels == (intent == 1002)


@pytest.mark.real
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_every_byte_of_a_real_file_comes_back(tmp_path, path):
    if path.stat().st_size > 2_900_000:
        pytest.skip("large: its header comes back from a lossy store below, its voxels like those of any other")
    out = come_back(tmp_path, path, Quality(lossless=True))
    assert unpacked(out) == {path.name: whole(path)}


@pytest.mark.real
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_every_byte_of_a_real_header_comes_back_from_a_lossy_store(tmp_path, path):
    source = read_source(path)
    spread = float(np.ptp(source.voxels[np.isfinite(source.voxels)].astype(float)))
    out = come_back(tmp_path, path, Quality(max_error=spread or 1.0))
    start = len(source.header)
    (after,) = unpacked(out).values()
    before = whole(path)
    assert len(after) == len(before)
    assert after[:start] == before[:start]


@pytest.mark.parametrize("name", ["nifti1.hdr", "nifti2.hdr"])
def test_headers_alone_come_back_with_voxels_made_for_them(tmp_path, name):
    data = (NIBABEL / name).read_bytes()
    version = nib.Nifti1Header if name == "nifti1.hdr" else nib.Nifti2Header
    with (NIBABEL / name).open("rb") as file:
        known = version.from_fileobj(file, check=False)
    size = int(np.prod(known.get_data_shape())) * known.get_data_dtype().itemsize
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.hdr").write_bytes(data)
    (tmp_path / "in/a.img").write_bytes(bytes(int(known["vox_offset"])) + bytes(size))
    out = come_back(tmp_path, tmp_path / "in/a.hdr", Quality(lossless=True))
    assert unpacked(out) == unpacked(tmp_path / "in")


def whole(path):
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
