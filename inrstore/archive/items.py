"""What a job is made of: the `Job` itself, one `Item` for each thing to do, one `Outcome` for what became of it.

All are plain values: they travel to workers, into the journal and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from inrstore.archive.rules import Rules, Selection

SourceKind: TypeAlias = Literal["tree", "bids", "zip", "dicom"]
Kind: TypeAlias = Literal["image", "copy", "dicom", "zip"]
Status: TypeAlias = Literal["converted", "copied", "failed"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with a source, and how; the same for every item and every worker.

    Parameters
    ----------
    source : str
        Absolute path or URL of a folder; of a single zip, the folder that holds it.
    destination : str
        Absolute path or URL of the archive.
    kind : {"tree", "bids", "zip", "dicom"}
        What the source is.
    name : str
        What people call the source: the last part of its path. Of a zip, its key in `source`.
    rules : Rules
        Quality and effort of each image.
    selection : Selection
        Which files are taken.
    pictures : bool
        Whether a picture of each image is made for the report.
    batch : int
        Images that are fitted together.
    patience : float
        Seconds to wait for a store that another process holds: that of a worker that died may take a while to
        be free again.
    """

    source: str
    destination: str
    kind: SourceKind
    name: str
    rules: Rules
    selection: Selection = field(default_factory=Selection)
    pictures: bool = False
    batch: int = 1
    patience: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to do.

    Parameters
    ----------
    kind : {"image", "copy", "dicom", "zip"}
        An image file to a store; a file to copy byte for byte; a folder of DICOM files to one store each
        series; a zip to a folder.
    key : str
        Where it is in the source: a file, or the folder of DICOM files ("" is the source itself).
    out : str
        Where it goes in the archive: the folder of the store, the file, or the folder ("" is the archive itself).
    size : int
        Bytes to read; 0 if that is not known yet.
    problem : str
        Why it can only fail; empty otherwise.
    """

    kind: Kind
    key: str
    out: str
    size: int = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item, or of one image or file inside it.

    Parameters
    ----------
    kind : {"image", "copy", "dicom", "zip"}
        As in `Item`; what is inside a zip or a folder of DICOM files is an image or a copy.
    key : str
        Where it was in the source; inside a zip "subject.zip:dMRI/data.nii.gz".
    out : str
        Where it is in the archive.
    status : {"converted", "copied", "failed"}
    note : str
        Why it failed, or why an image was copied rather than converted.
    source_bytes, stored_bytes : int
        The file as it lay in the source, and what the archive takes for it.
    digest : str
        Of a copy: its digest (`inrstore.store.manifest.digest`). Of a store: its seal.
    measures : dict
        Of a store: psnr, psnr_range, rmse, max_error, lossless, worst_voxel, ratio, modes, promised.
    seconds : float
        Time taken.
    resumed : bool
        Whether it was there already from an earlier run of the same job.
    stop : bool
        Whether nothing else can succeed either: the destination is full.
    """

    kind: Kind
    key: str
    out: str
    status: Status
    note: str = ""
    source_bytes: int = 0
    stored_bytes: int = 0
    digest: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    resumed: bool = False
    stop: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**vars(self), "measures": dict(self.measures)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Take what `to_dict` gave."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})
