"""The flags that say what a conversion, an export or an import makes of variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

from absl import flags

from estimator_ckpt.cli import UsageError
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.matching.policies import MATCH_BY
from estimator_ckpt.roles.records import TARGETS


class AveragesParser(flags.ArgumentParser):  # type: ignore[type-arg]
    """A flag that is given alone, or with a name."""

    def parse(self, argument: str | bool) -> str | bool:
        return {"true": True, "false": False}.get(str(argument).lower(), argument)


_Define = Callable[[str, flags.FlagValues], Any]


def _enum(choices: Sequence[str], text: str) -> _Define:
    return lambda name, values: flags.DEFINE_enum(
        name, None, list(choices), text, flag_values=values
    )


def _boolean(text: str, default: bool | None = False) -> _Define:
    return lambda name, values: flags.DEFINE_boolean(name, default, text, flag_values=values)


def _string(text: str) -> _Define:
    return lambda name, values: flags.DEFINE_string(name, None, text, flag_values=values)


def _repeated(text: str) -> _Define:
    return lambda name, values: flags.DEFINE_multi_string(name, [], text, flag_values=values)


def _list(text: str) -> _Define:
    """Texts between commas; a flag that is given again adds to them."""
    return lambda name, values: flags.DEFINE_multi_string(name, [], text, flag_values=values)


def _averages(text: str) -> _Define:
    return lambda name, values: flags.DEFINE_flag(
        flags.Flag(AveragesParser(), None, name, False, text, boolean=True), flag_values=values
    )


# Field of ConvertOptions -> how to define its flag.
_FLAGS: dict[str, _Define] = {
    "checkpoint_format": _enum(CHECKPOINT_FORMATS, "What the result is. Required."),
    "layout": _enum(
        LAYOUTS,
        "The objects for names: one child of var_list for each, or an object for each scope, as a"
        " tf.Module tree has them. Unless given: var_list for a name-based source, and the objects"
        " that are there for another.",
    ),
    "like": _string("An object-based checkpoint whose objects the result is to have."),
    "match_by": _enum(
        MATCH_BY,
        "With --like: what decides where objects and names lead to different variables. Unless"
        " given, that is an error that shows both.",
    ),
    "rename": _repeated(
        r"REGEX:REPLACEMENT, as in 'old/(.*):new/\1'. The first that matches decides."
    ),
    "assignment_map": _repeated(
        "FROM:TO, two names, or two scopes that end in '/', as init_from_checkpoint takes them."
        " FROM may be an object path."
    ),
    "exclude": _repeated("REGEX of names, or of object paths, to leave out."),
    "drop_slots": _boolean("Leave out the optimizers' variables."),
    "drop_configs": _boolean(
        "Leave out the classes of layers that Keras of TensorFlow 2.0 saved (OBJECT_CONFIG_JSON)."
    ),
    "use_averages": _averages(
        "Put the averages (tf.train.ExponentialMovingAverage) in the places of their variables,"
        " without the optimizers' variables; --use_averages=NAME for those of another name."
    ),
    "keep_raw": _string("With --use_averages: the raw value of X stays as X/KEEP_RAW."),
    "optimizer": _enum(
        TARGETS,
        "Make the slots those of tf.compat.v1's optimizers (tf1), of Keras' legacy ones (keras), or"
        " of those since 2.11, as --like has them (keras2, keras3).",
    ),
    "from_optimizer": _string(
        "The CLASS of the optimizer, as programs name it (AdamW, LAMBOptimizer), where the"
        " checkpoint does not tell."
    ),
    "hyperparameters": _list(
        "NAME=NUMBER,...: numbers of the optimizer, to be written or to convert with:"
        " learning_rate, momentum, beta_1, iter, ...; of several optimizers"
        " Momentum/learning_rate, Adam/beta_1, ..."
    ),
    "dtype": _list(
        "DTYPE to cast all floating-point variables to, or FROM:TO,... Slots go along; steps and an"
        " optimizer's own numbers stay. Writes new data files."
    ),
    "copy": _boolean("Copy data files instead of linking them."),
    "compact": _boolean("Write new data files without what was left out."),
    "with_input": _boolean(
        "Take the position of the input along, which a job has saved with --save_input: it holds"
        " records of the training data."
    ),
    "verify": _boolean(
        "Check the source before, and compare the result with it. Unless given, the result is"
        " compared if bytes were copied or cast.",
        default=None,
    ),
}


def define_options(flag_values: flags.FlagValues, names: Sequence[str] = tuple(_FLAGS)) -> None:
    """Defines the flags, or those of the names alone."""
    for name in names:
        _FLAGS[name](name, flag_values)


def read_options(values: flags.FlagValues, *, in_place: bool = False) -> ConvertOptions:
    """The options that the flags of define_options() say.

    Raises:
      UsageError: a flag is missing or wrong.
      SettingsError: they do not fit each other.
    """
    return ConvertOptions(**option_values(values), in_place=in_place)


def option_values(values: flags.FlagValues) -> dict[str, Any]:
    """What the flags of define_options() that are defined say, by their names.

    Raises:
      UsageError: a flag is missing or wrong.
    """
    found: dict[str, Any] = {name: values[name].value for name in _FLAGS if name in values}
    if "checkpoint_format" in found and found["checkpoint_format"] is None:
        raise UsageError(
            "--checkpoint_format is missing: saver (names, as TF1 has them), checkpoint (objects, "
            "TF2) or both"
        )
    for name in ("rename", "assignment_map"):
        found[name] = [_rule(name, text) for text in found[name]]
    found["dtype"] = _dtype(_parts(found["dtype"]))
    if "hyperparameters" in found:
        found["hyperparameters"] = dict(map(_number, _parts(found["hyperparameters"])))
    return found


def _rule(flag: str, text: str) -> tuple[str, str]:
    """FROM:TO, divided at the last colon."""
    start, colon, end = text.rpartition(":")
    if not colon:
        raise UsageError(f"--{flag}: expected FROM:TO, found {text!r}")
    return start, end


def _parts(texts: Sequence[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _number(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.isdecimal() else float(number)
    except ValueError:
        raise UsageError(f"--hyperparameters: expected NAME=NUMBER, found {text!r}") from None


def _dtype(texts: list[str]) -> Union[str, dict[str, str], None]:
    """One dtype for all, or FROM:TO for some."""
    if not texts:
        return None
    if len(texts) == 1 and ":" not in texts[0]:
        return texts[0]
    return dict(_rule("dtype", text) for text in texts)
