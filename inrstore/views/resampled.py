"""A grid of a field -> a NIfTI file, a few planes at a time; the header says what is still true of the source."""

from __future__ import annotations

import gzip
import math
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, MissingDependencyError
from inrstore.sources.gradients import SIDECARS
from inrstore.sources.registry import stem
from inrstore.store.container import NewFile, explained
from inrstore.store.export import ExportReport
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, JobCallback
from inrstore.views.grids import Grid

_STALE = ("slice_code", "slice_start", "slice_end", "slice_duration")
"""Fields on when slices were taken: of a grid there are others."""
_SINGLE = {348: (b"n+1\0", 352), 540: (b"n+2\0\r\n\x1a\n", 544)}
"""Size of a header: its magic, and where the voxels begin."""
_GONE = ".json"  # has times of slices and sizes of voxels


@dataclass(frozen=True, kw_only=True)
class ResampledReport(ExportReport):
    """What an export on another grid made.

    Parameters
    ----------
    kind : str
        What gave the values: "network", "spline" or "mixed".
    chunk_kinds : dict of str to int
        How many chunks are of each kind.
    shape : tuple of int
        Voxels along i, j, k.
    spacing : tuple of float
        Between them, in mm.
    """

    kind: str
    chunk_kinds: dict[str, int]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def export(
    grid: Grid, store: Store, out: str | os.PathLike[str], kinds: dict[str, int], kind: str,
    progress: JobCallback | None = None,
) -> ResampledReport:  # fmt: skip
    """Write a grid as a NIfTI; see `Field.export`."""
    destination = Path(out)
    ending = destination.name.lower()
    if not ending.endswith((".nii", ".nii.gz")):
        raise ConfigurationError(f"{destination}: a grid is written as a NIfTI; the name must end in .nii or .nii.gz")
    dtype = store.source_dtype.newbyteorder("<")
    head = header(store, grid)
    beside = {destination.with_name(stem(destination.name) + name): data
              for name, data in store.sidecars().items() if name in SIDECARS and name != _GONE}  # fmt: skip
    whole = math.prod(grid.shape) * dtype.itemsize
    steps = list(grid.blocks())
    clock = Clock(progress, len(steps), whole)
    with ExitStack() as stack:
        made = stack.enter_context(NewFile(destination))
        others = [(stack.enter_context(NewFile(path)), data) for path, data in beside.items()]
        with explained(destination):
            # A file is sorted by measurements, places come with all of theirs: it is laid out plain, then packed.
            packed = ending.endswith(".gz")
            laid = stack.enter_context(NewFile(destination)) if packed else made
            with laid.path.open("x+b") as content:
                content.write(head)
                content.flush()
                for done, (planes, rows) in enumerate(steps, 1):
                    _write(content.fileno(), len(head), grid, planes, rows, dtype)
                    clock.tell("resampling", done)
                if packed:
                    content.seek(0)
                    with made.path.open("xb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as stream:
                        shutil.copyfileobj(content, stream, 1 << 20)
            for other, data in others:
                other.path.write_bytes(data)
        for other, _ in others:
            other.commit()
        made.commit()
    size = destination.stat().st_size + sum(len(data) for data in beside.values())
    spacing = tuple(float(step) for step in np.linalg.norm(grid.affine[:3, :3], axis=0))
    return ResampledReport(
        store=store.label,
        file=str(destination),
        source_bytes=whole,
        file_bytes=size,
        seconds=clock.seconds,
        mb_per_s=whole / 1e6 / clock.seconds,
        kind=kind,
        chunk_kinds=kinds,
        shape=grid.lengths,
        spacing=(spacing[0], spacing[1], spacing[2]),
    )


def _write(handle: int, start: int, grid: Grid, planes: slice, rows: slice, dtype: np.dtype[Any]) -> None:
    """Write some rows of some planes, of all measurements, where they belong."""
    lead = len(grid.leading)
    space = (planes, rows, slice(None))[3 - (grid.ndim - lead) :]
    values = grid[(*(slice(None),) * lead, *space)]
    x, y, z = grid.lengths
    stored = rounded(values, dtype).reshape(-1, planes.stop - planes.start, (rows.stop - rows.start) * x)
    for number, measurement in enumerate(stored):
        for plane, run in enumerate(measurement, planes.start):
            offset = ((number * z + plane) * y + rows.start) * x * dtype.itemsize
            view = memoryview(run.tobytes())
            while view:
                done = os.pwrite(handle, view, start + offset)
                view, offset = view[done:], offset + done


def rounded(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return values in a type: integers are rounded to nearest and limited to their range."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    info = np.iinfo(dtype)
    whole = np.rint(values.astype(np.float64))
    # The largest 64-bit integers are no float64: what reaches them is put in as such.
    made = np.clip(whole, float(info.min), np.nextafter(float(info.max), 0) if info.bits > 53 else info.max).astype(
        dtype
    )
    made[whole >= float(info.max)] = info.max
    return made


def header(store: Store, grid: Grid) -> bytes:
    """Return the header of a NIfTI on another grid, up to the voxels.

    Of a store of a NIfTI it is the source's: type, scaling, units, intent, description; sform and qform, whichever are
    set, go along with the voxels. When slices were taken and extensions, which may repeat what is not true any
    more, are left out. Of others it is a new one, with the affine as sform.

    Parameters
    ----------
    store : Store
    grid : Grid

    Raises
    ------
    MissingDependencyError
        Without nibabel.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError('writing NIfTI needs nibabel: pip install "inrstore[nifti]"') from error
    kind, block = str(store.attributes["source"].get("kind")), store.header()
    shape = (*grid.lengths[: grid.ndim - len(grid.leading)], *grid.leading[::-1])
    change = np.linalg.inv(grid.field.affine) @ grid.affine
    if kind.startswith("NIfTI"):
        made: Any = nibabel.Nifti2Header if kind.startswith("NIfTI-2") else nibabel.Nifti1Header
        size = 540 if kind.startswith("NIfTI-2") else 348
        found: Any = made(block[:size], check=False).as_byteswapped("<")
        forms = {name: (getattr(found, f"get_{name}")(), int(found[f"{name}_code"])) for name in ("qform", "sform")
                 if found[f"{name}_code"] > 0}  # fmt: skip
        steps = np.array(found["pixdim"][1:4], np.float64) * np.abs(np.diag(change)[:3])
    else:
        made, size = nibabel.Nifti1Header, 348
        found = made()
        found["scl_slope"], found["scl_inter"] = store.attributes["scl_slope"], store.attributes["scl_inter"]
        forms = {"sform": (grid.field.affine, 1)}
        found.set_xyzt_units("mm")
        steps = np.linalg.norm(grid.affine[:3, :3], axis=0)
    found.set_data_dtype(store.source_dtype.newbyteorder("<"))
    slope, inter = found["scl_slope"].copy(), found["scl_inter"].copy()
    found.set_data_shape(shape)
    found["pixdim"][1:4] = np.where(steps > 0, steps, 1.0)
    for name, (affine, code) in forms.items():
        getattr(found, f"set_{name}")(affine @ change, code)
    for name in _STALE:
        found[name] = 0
    found["magic"], found["vox_offset"] = _SINGLE[size]
    found["scl_slope"], found["scl_inter"] = slope, inter
    return bytes(found.binaryblock) + bytes(4)
