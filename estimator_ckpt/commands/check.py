"""usage: estimator-ckpt check [flags] --model=MODEL CHECKPOINT

Tells before a job runs whether its model will restore from a checkpoint, or, with
--warm_start_config, warm-start from it.

Examples:
  estimator-ckpt check --model=my.model:model_fn run
  estimator-ckpt check --model=another_run run/model.ckpt-1000
  estimator-ckpt check --model=my.model:model_fn --warm_start_config=warm_start.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from estimator_ckpt.check import Fit, check_checkpoint
from estimator_ckpt.checking.model import is_checkpoint
from estimator_ckpt.cli import EXIT_NO, EXIT_OK, UsageError
from estimator_ckpt.commands.html_flag import check_html, define_html, write_html
from estimator_ckpt.errors import printable
from estimator_ckpt.loading import check_module, import_from_current_directory
from estimator_ckpt.text.logs import import_tensorflow
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.rows import columns, to_json, total_line
from estimator_ckpt.text.tables import print_table

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart

EXIT_CODES = {
    0: "the model fits the checkpoint",
    1: "it does not",
    2: "an error: a wrong flag, a path that cannot be read, a model that cannot be made",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""
    flags.DEFINE_string(
        "model",
        None,
        "The model's side: another checkpoint, a SavedModel's directory, a .meta graph, a "
        "graph.pbtxt, or package.module:function, which is called in a graph (a model_fn, or a "
        "function without arguments).",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "input_fn",
        None,
        "package.module:function that gives a model_fn its features and labels.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "warm_start_config",
        None,
        "A YAML file of warm-start settings; CHECKPOINT may then be left out, as the file names "
        "one.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "all", False, "List every variable in a row of its own.", flag_values=flag_values
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)
    define_html(flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Checks one checkpoint; 1 if the model does not fit."""
    settings: WarmStart | None = None
    if flag_values.warm_start_config:
        from estimator_ckpt.warm_start import load_warm_start

        source = arguments[0] if len(arguments) == 1 else None
        settings = load_warm_start(flag_values.warm_start_config, ckpt_to_initialize_from=source)
        arguments = arguments or [settings.ckpt_to_initialize_from]
    if len(arguments) != 1:
        raise UsageError(f"check: expected one checkpoint, found {len(arguments)}")
    if not flag_values.model:
        raise UsageError(
            "check: --model=MODEL says what to check it against: another checkpoint, or "
            "package.module:function"
        )
    check_html(flag_values)
    import_from_current_directory()
    if not is_checkpoint(flag_values.model):
        check_module(flag_values.model)
        import_tensorflow()
    with progress_bar(f"checking {arguments[0]}"):
        fit = check_checkpoint(
            arguments[0], flag_values.model, warm_start=settings, input_fn=flag_values.input_fn
        )
        if flag_values.html:
            from estimator_ckpt.pages.mapping import fit_view

            write_html(flag_values, f"check {fit.checkpoint}", [fit_view(fit, flag_values.model)])
    if flag_values.json:
        print(to_json(fit.rows, checkpoint=fit.checkpoint, fits=fit.fits, hint=fit.hint))
    else:
        _print(fit, all_rows=flag_values.all)
    return EXIT_OK if fit.fits else EXIT_NO


def _print(fit: Fit, *, all_rows: bool) -> None:
    shown = fit.sorted_rows() if all_rows else fit.folded_rows()
    print(f"{printable(fit.checkpoint)}\n")
    if shown:
        headers, cells = columns(shown, expected="model", found="checkpoint")
        print_table(headers, cells, total_line(fit.sorted_rows()))
    if fit.hint:
        print(printable(fit.hint))
    print("fits" if fit.fits else "does not fit")
