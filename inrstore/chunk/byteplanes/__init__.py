"""The fallback: values, or steps of a grid, as deflated planes of bytes."""
