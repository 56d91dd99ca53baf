"""Writes the golden checkpoints: small ones of every kind, by the TensorFlow that runs this.

    python tests/goldens/make.py OUT_DIR [KIND...]

makes OUT_DIR/tf<major>.<minor>/<kind>/ for every kind that this TensorFlow can write, or those that
are named, each with an `expected.json` of what the checkpoint holds. Those here were made with
tests/goldens as OUT_DIR, under TensorFlow 2.12, 2.15, 2.16, 2.18 and 2.21; to make them again
changes nothing but a random number in fingerprint.pb and the times in state files of the package's
jobs.

The expected values are those that the program put in, or saw in its own session; none is read back
from the files. Within one checkpoint all are distinct, so that a swap of two variables shows.

It needs nothing but TensorFlow, because it runs under versions that the tests do not run under; but
for `snappy`, which TensorFlow reads and does not write, and for what the package itself writes.
"""

from __future__ import annotations

import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import by_name
import by_object
import by_op
import by_package
import tensorflow as tf

VERSION = tuple(int(part) for part in tf.__version__.split(".")[:2])


def kinds() -> dict:
    """The kinds that this TensorFlow can write."""
    functions = {**by_name.KINDS, **by_object.KINDS, **by_op.KINDS, **by_package.KINDS}
    if VERSION >= (2, 16):  # No Estimator, and Keras 3.
        for kind in ("keras_weights", "keras_tuner", "slots_keras_legacy"):
            del functions[kind]
    else:
        import by_estimator

        functions.update(by_estimator.KINDS)
    if VERSION < (2, 21):
        del functions["dtypes_new"]
    return functions


def main(out_dir: str, *only: str) -> None:
    for kind, write in kinds().items():
        if only and kind not in only:
            continue
        version = "tf{}.{}".format(*VERSION)
        directory = os.path.join(os.path.abspath(out_dir), version, kind)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        if kind in by_object.KINDS or kind in by_op.KINDS:
            write(directory)
        else:
            with tf.Graph().as_default():
                write(directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
