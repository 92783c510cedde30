"""Chunk mode transform: KLT, wavelets, context-coded coefficients, decoded in integers (specification section 14)."""
