"""Shared by the tests: where the real scans are, small images to order, and check_* functions."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from inrstore.errors import InrstoreError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="encoding to a psnr or rmse needs torch")

AFFINE = np.array([[-2.0, 0.1, 0, 90], [0.1, 2, 0.2, -110], [0, -0.2, 3, -60], [0, 0, 0, 1]])

# Offsets of header fields: name -> (struct letter, NIfTI-1, NIfTI-2).
_FIELDS = {
    "sizeof_hdr": ("i", 0, 0),
    "datatype": ("h", 70, 12),
    "vox_offset": ("f", 108, None),
    "scl_slope": ("f", 112, None),
    "scl_inter": ("f", 116, None),
    "xyzt_units": ("b", 123, None),
    "qform_code": ("h", 252, None),
    "sform_code": ("h", 254, None),
    "quatern_b": ("f", 256, None),
    "srow_x": ("f", 280, None),
}


def real_scan(name: str) -> Path:
    """Return a real scan by subject ("sub-s03"), or skip the test where the scans are not at hand."""
    found = sorted(DATA.glob(f"{name}/*/*.nii.gz"))
    if not found:
        pytest.skip(f"the real scan {name} is not at {DATA}")
    return found[0]


def random_image(shape: tuple[int, ...], dtype: npt.DTypeLike = "int16", seed: int = 0) -> npt.NDArray[Any]:
    """Return an image that is smooth, with some noise; axes as in a NIfTI (x, y, z, t)."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij", sparse=True)
    smooth = sum(np.sin(3 * (i + 1) * axis + i) for i, axis in enumerate(axes))
    values = 40 + 12 * np.asarray(smooth) + rng.normal(0, 1.5, shape)
    kind = np.dtype(dtype)
    return (np.rint(values) if kind.kind in "iu" else values).astype(kind)


def write_nifti(
    path: Path, values: npt.NDArray[Any], *, units: str = "mm", time: str = "sec", version: int = 1,
    extension: bytes = b"", slope: float | None = None, order: str = "<",
) -> Path:  # fmt: skip
    """Write a NIfTI file; the values are those stored."""
    header_class, image_class = (
        (nib.Nifti1Header, nib.Nifti1Image) if version == 1 else (nib.Nifti2Header, nib.Nifti2Image)
    )
    header = header_class(endianness=order)
    header.set_data_dtype(values.dtype.newbyteorder(order))
    header.set_xyzt_units(units, time)
    image = image_class(values, AFFINE, header, dtype=values.dtype.newbyteorder(order))
    image.header.set_xyzt_units(units, time)
    image.header.set_zooms([2.0, 2.0, 3.0, 1.5, 1, 1, 1][: values.ndim])
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    image.to_filename(path)
    if slope is not None:
        patch_header(path, scl_slope=slope)
    return path


def patch_header(path: Path, **fields: float | tuple[int, ...]) -> Path:
    """Overwrite fields of the header of a little-endian .nii file; `dim` takes all its entries."""
    data = bytearray(path.read_bytes())
    for name, value in fields.items():
        if name in ("dim", "pixdim"):
            assert isinstance(value, tuple)
            letter, offset = ("h", 40) if name == "dim" else ("f", 76)
            struct.pack_into(f"<{len(value)}{letter}", data, offset, *value)
        else:
            letter, offset, _ = _FIELDS[name]
            struct.pack_into("<" + letter, data, offset, value)
    path.write_bytes(data)
    return path


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, links and empty folders included."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            out[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            out[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            out[name] = "folder"
    return out


def files_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield every file below a folder: its path inside, and its size."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size


def check_refused(action: Callable[[], Any], error: type[InrstoreError], *words: str, folder: Path) -> InrstoreError:
    """Check that an action raises `error`, says every one of `words`, and changes nothing in `folder`."""
    before = tree(folder)
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    assert tree(folder) == before
    return caught.value


def check_same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    """Check that two arrays are equal bit for bit, NaN and -0.0 included."""
    assert one.shape == other.shape
    assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
    native = one.dtype.newbyteorder("=")
    assert np.ascontiguousarray(one, native).tobytes() == np.ascontiguousarray(other, native).tobytes()


def reseal(store: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Forge a store that is a folder of Zarr v3: change the group's document, then make everything fit it again."""
    from inrstore.store import layout, manifest

    path = store / "zarr.json"
    document = layout.decode_json(path.read_bytes())
    change(document)
    document["attributes"]["inrstore"]["manifest"]["seal"] = manifest.NO_SEAL
    for name, array in document["consolidated_metadata"]["metadata"].items():
        (store / name / "zarr.json").write_bytes(layout.encode_json(array))
    path.write_bytes(manifest.seal(layout.encode_json(document)))


def opened(store: Path) -> Any:
    """Open a store as plain zarr does, which knows nothing of this package but its codec."""
    import zarr

    return zarr.open_group(zarr.storage.ZipStore(store, mode="r") if store.suffix == ".ozx" else store, mode="r")
