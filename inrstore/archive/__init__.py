"""Many images at once: a tree, a zip, a folder of scans -> an archive of stores, on one machine or many."""
