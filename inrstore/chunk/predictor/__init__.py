"""Lossless prediction of every value from those decoded before it (specification section 12)."""
