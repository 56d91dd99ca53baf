"""Many checkpoints on many machines: transforms for Apache Beam, which any of its runners can run.

    with apache_beam.Pipeline(options=...) as pipeline:
        pipeline | ConvertDirectory(source, destination, ConvertOptions("both"), log=log)

What there is is found on one worker and shuffled among all. Each then acts on one checkpoint at a
time, by the functions that one machine uses. A directory's state file follows when all of its
checkpoints are through. A runner may have an element acted on twice, even at once: that is the same
as once. Nothing is retried here; what raises is the runner's to try again, and a checkpoint that
fails is an outcome like any other.

The workers read and write all paths, so these are remote ones, or of a file system that they share.
What they have done is in the log, in shards (files/log.py) that are written every half minute. So a
run that was broken off goes on, on many machines or by `estimator-ckpt convert --log` on one.
"""

from estimator_ckpt.errors import MissingPackageError

try:
    import apache_beam  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "apache_beam":
        raise
    raise MissingPackageError(
        "estimator_ckpt.beam needs Apache Beam, which is not installed: "
        "pip install 'estimator-ckpt[beam]' (Python 3.10 or later)"
    ) from error

from estimator_ckpt.beam.converting import ConvertDirectory, convert_directory
from estimator_ckpt.beam.verifying import VerifyDirectory, verify_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions

__all__ = [
    "ConvertDirectory",
    "ConvertOptions",
    "VerifyDirectory",
    "convert_directory",
    "verify_directory",
]
