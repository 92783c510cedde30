"""Files that hold a shared parameter <-> its bytes (specification of stores, section 5).

A file is the magic, a version, the length of the parameter, the parameter, and the CRC32C of all before it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c

from inrstore import files, limits
from inrstore.chunk.neural.decode import check_shared
from inrstore.errors import ConfigurationError, CorruptChunkError, FileTooLargeError, StoreError
from inrstore.files import durable
from inrstore.store.container import refuse_existing

MAGIC = b"INRSHARE"
VERSION = 1
_HEAD, _CHECKSUM = struct.Struct("<8sHI"), struct.Struct("<I")
_MOST = _HEAD.size + limits.MAX_SHARED_BYTES + _CHECKSUM.size


def write_parameter(path: str, data: bytes) -> None:
    """Write a parameter to a file of this machine, whole or not at all.

    Raises
    ------
    DestinationExistsError
        When something has the name.
    """
    refuse_existing(path)
    head = _HEAD.pack(MAGIC, VERSION, len(data)) + data
    made = durable.write_new(Path(path).absolute().parent, [head + _CHECKSUM.pack(google_crc32c.value(head))])
    try:
        durable.give_name(made, Path(path).absolute())
    except FileExistsError:
        durable.remove(made)
        refuse_existing(path)
        raise


def read_parameter(path: str | os.PathLike[str]) -> bytes:
    """Return the parameter of a file, checked.

    Parameters
    ----------
    path : path-like or str
        Path or URL.

    Returns
    -------
    bytes
        Of a network as specification section 13.2 has them.

    Raises
    ------
    StoreError
        Naming the file and the field that is wrong.
    """
    name = os.fspath(path)
    try:
        data = files.read(*files.split(name), _MOST)
    except FileTooLargeError:
        raise StoreError(f"{name}: larger than any file with a shared parameter") from None
    except (FileNotFoundError, IsADirectoryError):
        raise StoreError(f"{name}: no such file") from None
    if len(data) < _HEAD.size + _CHECKSUM.size or not data.startswith(MAGIC):
        raise StoreError(f"{name}: magic: no file that `inrstore train` made")
    _, version, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise StoreError(f"{name}: version: {version} is not one this program knows")
    if length != len(data) - _HEAD.size - _CHECKSUM.size:
        raise StoreError(f"{name}: length: {length} in a file of {len(data)} bytes")
    if _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0] != google_crc32c.value(data[: -_CHECKSUM.size]):
        raise StoreError(f"{name}: checksum: the file is damaged")
    parameter = data[_HEAD.size : _HEAD.size + length]
    try:
        check_shared(parameter)
    except CorruptChunkError as error:
        raise StoreError(f"{name}: {error.field}: {error.reason}") from None
    return parameter


def read_parameters(paths: Sequence[str | os.PathLike[str]]) -> tuple[bytes, ...]:
    """Return the parameters of several files, each once.

    Raises
    ------
    StoreError, ConfigurationError
        Naming the file; or there are too many.
    """
    found = tuple(dict.fromkeys(read_parameter(path) for path in paths))
    if len(found) > limits.MAX_SHARED:
        raise ConfigurationError(f"shared: {len(found)} files; the most is {limits.MAX_SHARED}")
    return found
