"""Matrices of integers inside payloads (specification section 12.3)."""

from __future__ import annotations

from inrstore.chunk.entropy.bits import read_matrix
from inrstore.chunk.frame import Reader


def size_of(data: bytes, rows: int, columns: int) -> int:
    """Return how many bytes the matrix takes that data begin with."""
    reader = Reader(memoryview(data))
    read_matrix(reader, rows, columns, "matrix")
    return reader.position
