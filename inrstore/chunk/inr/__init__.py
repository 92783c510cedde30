"""Integer networks: their bytes, their exact evaluation; fitting in `fit`."""
