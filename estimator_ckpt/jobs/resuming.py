"""Where a job will resume, from the files alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from estimator_ckpt import files
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import NotACheckpointError, SettingsError
from estimator_ckpt.options import ON_CORRUPT
from estimator_ckpt.reading.moved import in_directory, is_there
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.resume import check, resume


@dataclass(frozen=True)
class ResumePoint:
    """Where a training will begin.

    Attributes:
      path: the prefix of the checkpoint that it will restore; None: it starts anew.
      step: the global step that it begins at; 0 where it starts anew, None where the checkpoint has
        none.
      finished: whether `max_steps` is reached, so that it will make no step.
    """

    path: str | None
    step: int | None
    finished: bool


def resume_point(
    model_dir: str | os.PathLike[str],
    max_steps: int | None = None,
    *,
    on_corrupt: str = "error",
    check_data: bool = False,
) -> ResumePoint:
    """Tells where a job will resume, before it makes a graph or a session; it writes nothing.

    For several processes that train together, as under Horovod: where the job is finished, rank 0
    would skip the training, and the others wait for it for ever. With this all of them know:

        point = estimator_ckpt.resume_point(model_dir, max_steps=20000)
        if point.finished:
            sys.exit()

    Every rank has to see the same files, and none may have begun to train, as that saves. If they
    are on rank 0 alone, it asks and the others get the answer: `hvd.broadcast_object(point)`.

    Args:
      model_dir: the directory of the job's checkpoints.
      max_steps: the global step at which training ends, if it does.
      on_corrupt: as the job has it, see SaverOptions; with "fall_back" the newest checkpoint is
        read through.
      check_data: as the job has it, see SaverOptions.

    Returns:
      What the job finds: the newest checkpoint of the state file, also in a model_dir that was
      moved; the one before it where the newest is damaged and the options have the job fall back.
      Whether the model's variables are in it needs the model: see check_checkpoint(). Whether its
      input's position is sound (`save_input`), the job looks itself.

    Raises:
      NotACheckpointError: the newest checkpoint of the state file is not there.
      CorruptCheckpointError: it or the state file is damaged.
      SettingsError: another value of `on_corrupt`.
    """
    if on_corrupt not in ON_CORRUPT:
        raise SettingsError(f"expected one of {', '.join(ON_CORRUPT)}", key="on_corrupt")
    newest = newest_checkpoint(files.path_text(model_dir, "model_dir"))
    if newest is None:
        return ResumePoint(None, 0, False)
    steps: list[int | None] = []

    def read_step(prefix: str) -> None:
        if on_corrupt == "fall_back":
            check(prefix)
        with open_checkpoint(prefix) as checkpoint:
            steps.append(checkpoint.global_step)

    path = resume(read_step, newest, on_corrupt=on_corrupt, check_data=check_data)
    step = steps[-1]
    finished = step is not None and max_steps is not None and step >= max_steps
    return ResumePoint(path, step, finished)


def newest_checkpoint(model_dir: str) -> str | None:
    """The newest checkpoint of a state file: in its place, or in a model_dir that was moved.

    Returns:
      None if there is no state file.

    Raises:
      NotACheckpointError: it is in neither place. A stock job would start anew without a word.
    """
    found = read_state(model_dir)
    if found is None:
        return None
    newest = in_directory(found.model_checkpoint_path, model_dir)
    if not is_there(newest):
        raise NotACheckpointError(
            f"the file `checkpoint` in {model_dir} names it as the newest one, but it is not "
            "there; bring it back, or remove the file `checkpoint` to start anew",
            path=newest,
        )
    return newest
