"""A checkpoint as a reader sees it: where it is, and its tensors by their names."""
