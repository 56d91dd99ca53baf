"""Tensor bundles, the files of a TensorFlow checkpoint: bytes in, bytes out, without TensorFlow."""
