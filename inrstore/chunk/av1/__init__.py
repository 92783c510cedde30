"""Slices as the frames of an AV1 sequence (specification section 15)."""
