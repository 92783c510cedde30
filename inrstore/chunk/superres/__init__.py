"""Mode superres: a network of a place gives a coarse image, a second network refines it (specification section 17)."""
