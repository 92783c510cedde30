"""The bytes of a chunk: numpy only, no input or output, no torch (specs/inrstore-1.md)."""
