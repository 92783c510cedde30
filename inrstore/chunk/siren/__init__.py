"""Chunk mode siren: one network from coordinates to values, evaluated where values are wanted."""
