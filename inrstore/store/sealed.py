"""A store as zarr and xarray read it: every value is compared with its digest before it is handed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from inrstore.errors import StoreError
from inrstore.store import reader


class SealedStore(Store):
    """The files of a store, read only; a file that is missing or was changed is an error, never zeros.

    Parameters
    ----------
    opened : inrstore.store.reader.Store
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, opened: reader.Store) -> None:
        super().__init__(read_only=True)
        self._opened = opened
        self._is_open = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealedStore) and self._opened.seal == other._opened.seal

    def __hash__(self) -> int:
        return hash(self._opened.seal)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self._opened.label, self._opened.seal  # else dask opens copies to compare them

    def __str__(self) -> str:
        return self._opened.label

    def __reduce__(self) -> tuple[type[SealedStore], tuple[reader.Store]]:
        return type(self), (self._opened,)

    def _value(self, key: str) -> bytes | None:
        if key in self._opened.documents:
            return self._opened.documents[key]
        return self._opened.file(key) if key in self._opened.manifest else None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Return a file or a part of it.

        Raises
        ------
        StoreError
            If it was changed or is missing.
        """
        data = await asyncio.to_thread(self._value, key)
        if data is None:
            return None
        if isinstance(byte_range, RangeByteRequest):
            data = data[byte_range.start : byte_range.end]
        elif isinstance(byte_range, OffsetByteRequest):
            data = data[byte_range.offset :]
        elif isinstance(byte_range, SuffixByteRequest):
            data = data[-byte_range.suffix :]
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether a file belongs to the store."""
        return key in self._opened.documents or key in self._opened.manifest

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        raise StoreError(f"{self._opened.label}: a store is never changed")

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise StoreError(f"{self._opened.label}: a store is never changed")

    async def list(self) -> AsyncIterator[str]:
        """Yield every file."""
        for key in (*self._opened.documents, *self._opened.manifest):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every file whose name begins so."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in dict.fromkeys([key[len(start) :].split("/")[0] async for key in self.list_prefix(start)]):
            yield name
