"""An image without what people wrote into its file: free text of the header, extensions, tags behind the voxels.

Places and lengths stay as they were, so that nothing in the header has to be changed that says where the voxels are.
Sidecars, names and voxels are not looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inrstore.errors import SourceError
from inrstore.sources.source import Source

_TEXTS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
"""Fields of NIfTI headers that nobody reads by the format (nifti1.h, nifti2.h)."""
_MGH_FOOTER = 20
"""Repetition time, flip angle, echo and inversion time, field of view, all float32; tags follow (FreeSurfer)."""


def stripped(source: Source) -> tuple[Source, tuple[str, ...]]:
    """Drop what people wrote.

    Parameters
    ----------
    source : Source

    Returns
    -------
    Source, tuple of str
        And what was dropped: the names of fields that were not empty, "extensions", "trailing bytes", "tags".

    Raises
    ------
    SourceError
        For a format of which it is not known what can be dropped.
    """
    if source.kind.startswith("NIfTI") or source.kind.startswith("CIFTI"):
        return _nifti(source)
    if source.kind == "MGH":
        rest = source.trailing[_MGH_FOOTER:]
        return replace(source, trailing=source.trailing[:_MGH_FOOTER]), ("tags",) if rest.strip(b"\0") else ()
    raise SourceError(f"{source.label}: what identifies people cannot be taken out of {source.kind}")


def _nifti(source: Source) -> tuple[Source, tuple[str, ...]]:
    import nibabel

    second = source.header[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    header, dropped = bytearray(source.header), []
    fields: Any = kind.template_dtype.fields
    for name in _TEXTS:
        if name not in fields:
            continue
        dtype, start = fields[name][:2]
        if header[start : start + dtype.itemsize].strip(b"\0"):
            dropped.append(name)
        header[start : start + dtype.itemsize] = bytes(dtype.itemsize)
    fixed = kind.template_dtype.itemsize
    if source.spatial and bytes(header[fixed:]).strip(b"\0"):  # the extension of CIFTI says what the voxels are
        dropped.append("extensions")
        header[fixed:] = bytes(len(header) - fixed)
    for name, data in (("leading bytes", source.leading), ("trailing bytes", source.trailing)):
        if data.strip(b"\0"):
            dropped.append(name)
    leading = bytes(len(source.leading))
    return replace(source, header=bytes(header), leading=leading, trailing=b""), tuple(dropped)
