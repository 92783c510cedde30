"""A small network inside a lossy mode that corrects what has been decoded so far (specification section 16)."""
