"""What an Estimator whose model_fn is wrapped does itself with the checkpoints of its model_dir."""

from __future__ import annotations

import inspect
from typing import Any

from absl import logging

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.reading.moved import moved_here
from estimator_ckpt.warm_starting.eager import tensorflow_array


def put_methods(estimator: Any) -> None:
    """Has an Estimator speak of variables by their names, and find what a moved model_dir has.

    The methods belong to the object, and call those of its class, which stays what it is.
    """
    methods = _Methods(estimator)
    for name, method in inspect.getmembers(methods, inspect.ismethod):
        if not name.startswith("_"):
            setattr(estimator, name, method)


class _Methods:
    """The methods of tf.estimator.Estimator of the same names; arguments and results are theirs."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._class = type(estimator)

    def get_variable_names(self) -> list[str]:
        newest = self.latest_checkpoint()
        if newest is None:  # refused in the words of Estimator
            names: list[str] = self._class.get_variable_names(self._estimator)
            return names
        with open_checkpoint(newest) as checkpoint:
            return [name for name in checkpoint.variables if name != SAVE_COUNTER]

    def get_variable_value(self, name: str) -> Any:
        newest = self.latest_checkpoint()
        if newest is None:
            return self._class.get_variable_value(self._estimator, name)
        with open_checkpoint(newest) as checkpoint:
            array = checkpoint.get_tensor(name[:-2] if name.endswith(":0") else name)
            value = tensorflow_array(array)
            return value.copy() if value.shape else value[()]

    def latest_checkpoint(self) -> str | None:
        newest: str | None = moved_here(self._estimator.model_dir)
        return newest or self._class.latest_checkpoint(self._estimator)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        newest = moved_here(self._estimator.model_dir)
        last = self._argument("train", "max_steps", args, kwargs)
        if newest is not None and last is not None:
            with open_checkpoint(newest) as checkpoint:
                step = checkpoint.global_step
            if step is not None and step >= last:
                logging.info("Skipping training: %s has step %d already.", newest, step)
                return self._estimator
        return self._class.train(self._estimator, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        return self._class.evaluate(
            self._estimator, *args, **self._with_checkpoint("evaluate", args, kwargs)
        )

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self._class.predict(
            self._estimator, *args, **self._with_checkpoint("predict", args, kwargs)
        )

    def _with_checkpoint(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The keywords, with the checkpoint that Estimator does not find in a moved model_dir."""
        newest = moved_here(self._estimator.model_dir)
        if newest is None or self._argument(method, "checkpoint_path", args, kwargs):
            return kwargs
        return {**kwargs, "checkpoint_path": newest}

    def _argument(
        self, method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        signature = inspect.signature(getattr(self._class, method))
        return signature.bind_partial(self._estimator, *args, **kwargs).arguments.get(name)
