"""How well an image is kept: measures."""
