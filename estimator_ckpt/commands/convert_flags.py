"""The flags that say what a conversion makes of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from absl import flags

from estimator_ckpt.cli import UsageError
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.conversion.translate_optimizer import TARGETS
from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.roles.dialects import class_names


def define_options(flag_values: flags.FlagValues) -> None:
    """The flags that say what a conversion makes of a checkpoint."""

    def enum(name: str, choices: Sequence[str], text: str) -> None:
        flags.DEFINE_enum(name, None, list(choices), text, flag_values=flag_values)

    def boolean(name: str, default: bool | None, text: str) -> None:
        flags.DEFINE_boolean(name, default, text, flag_values=flag_values)

    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, None, text, flag_values=flag_values)

    def rules(name: str, text: str) -> None:
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)

    enum("checkpoint_format", CHECKPOINT_FORMATS, "What the result is. Required.")
    enum(
        "layout",
        LAYOUTS,
        "The objects for names: one child of var_list for each, or an object for each scope, as a"
        " tf.Module tree has them. Unless given: var_list for a name-based source, and the objects"
        " that are there for another.",
    )
    string("like", "An object-based checkpoint whose objects the result is to have.")
    rules("rename", r"REGEX:REPLACEMENT, as in 'old/(.*):new/\1'. The first that matches decides.")
    rules(
        "assignment_map",
        "FROM:TO, two names, or two scopes that end in '/', as init_from_checkpoint takes them."
        " FROM may be an object path.",
    )
    rules("exclude", "REGEX of names, or of object paths, to leave out.")
    boolean("drop_slots", False, "Leave out the optimizers' variables.")
    boolean(
        "drop_configs",
        False,
        "Leave out the classes of layers that Keras of TensorFlow 2.0 saved (OBJECT_CONFIG_JSON).",
    )
    flags.DEFINE_flag(
        flags.Flag(
            AveragesParser(),
            None,
            "use_averages",
            False,
            "Put the averages (tf.train.ExponentialMovingAverage) in the places of their variables,"
            " without the optimizers' variables; --use_averages=NAME for those of another name.",
            boolean=True,
        ),
        flag_values=flag_values,
    )
    string("keep_raw", "With --use_averages: the raw value of X stays as X/KEEP_RAW.")
    enum(
        "optimizer",
        TARGETS,
        "Make the slots those of tf.compat.v1's optimizers (tf1), of Keras' legacy ones (keras), or"
        " of those since 2.11, as --like has them (keras2, keras3).",
    )
    enum(
        "from_optimizer",
        tuple(class_names()),
        "The class of the optimizer, where that is not clear.",
    )
    flags.DEFINE_list(
        "hyperparameters",
        [],
        "NAME=NUMBER,...: numbers of the optimizer, to be written or to convert with:"
        " learning_rate, momentum, beta_1, iter, ...; of several optimizers"
        " Momentum/learning_rate, Adam/beta_1, ...",
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "dtype",
        [],
        "DTYPE to cast all floating-point variables to, or FROM:TO,... Slots go along; steps and an"
        " optimizer's own numbers stay. Writes new data files.",
        flag_values=flag_values,
    )
    boolean("copy", False, "Copy data files instead of linking them.")
    boolean("compact", False, "Write new data files without what was left out.")
    boolean(
        "verify",
        None,
        "Check the source before, and compare the result with it. Unless given, the result is"
        " compared if bytes were copied or cast.",
    )


class AveragesParser(flags.ArgumentParser):  # type: ignore[type-arg]
    """A flag that is given alone, or with a name."""

    def parse(self, argument: str | bool) -> str | bool:
        return {"true": True, "false": False}.get(str(argument).lower(), argument)


def read_options(values: flags.FlagValues, *, in_place: bool = False) -> ConvertOptions:
    """The options that the flags of define_options() say.

    Raises:
      UsageError: a flag is missing or wrong.
      SettingsError: they do not fit each other.
    """
    if values.checkpoint_format is None:
        raise UsageError("convert: --checkpoint_format is missing: saver, checkpoint or both")
    return ConvertOptions(
        values.checkpoint_format,
        layout=values.layout,
        like=values.like,
        rename=[parse_rule("convert", "rename", text) for text in values.rename],
        assignment_map=[
            parse_rule("convert", "assignment_map", text) for text in values.assignment_map
        ],
        exclude=values.exclude,
        drop_slots=values.drop_slots,
        drop_configs=values.drop_configs,
        use_averages=values.use_averages,
        keep_raw=values.keep_raw,
        optimizer=values.optimizer,
        from_optimizer=values.from_optimizer,
        hyperparameters=dict(_number(text) for text in values.hyperparameters),
        dtype=parse_dtype("convert", values.dtype),
        copy=values.copy,
        compact=values.compact,
        in_place=in_place,
        verify=values.verify,
    )


def parse_rule(verb: str, flag: str, text: str) -> tuple[str, str]:
    """FROM:TO, divided at the last colon."""
    start, colon, end = text.rpartition(":")
    if not colon:
        raise UsageError(f"{verb}: --{flag}: expected FROM:TO, found {text!r}")
    return start, end


def _number(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.isdecimal() else float(number)
    except ValueError:
        raise UsageError(
            f"convert: --hyperparameters: expected NAME=NUMBER, found {text!r}"
        ) from None


def parse_dtype(verb: str, texts: list[str]) -> Union[str, dict[str, str], None]:
    """One dtype for all, or FROM:TO for some."""
    if not texts:
        return None
    if len(texts) == 1 and ":" not in texts[0]:
        return texts[0]
    return dict(parse_rule(verb, "dtype", text) for text in texts)
