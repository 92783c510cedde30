"""A store as a whole: what it looks like, how an image gets into one and out again."""
