"""Chunk mode byteplanes: the fallback. Bit patterns, or indices of levels, as deflated planes of bytes."""
