"""usage: estimator-ckpt retention --dry_run [flags] RUN

Shows what the next save of the job in RUN would delete, and why each other checkpoint stays. It
goes by the options that the job's last save went by, unless flags say others: to try what
--keep_checkpoint_max=2 would leave, say. Nothing is deleted: that is the job's part.

Examples:
  estimator-ckpt retention run --dry_run
  estimator-ckpt retention run --dry_run --keep_checkpoint_max=2
"""

from __future__ import annotations

import json
import os
from typing import Any

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.errors import SettingsError, printable
from estimator_ckpt.jobs.flag_table import FLAGS
from estimator_ckpt.reading.best import criteria_of, parse_criteria
from estimator_ckpt.saving.forecast import POLICY, Forecast, forecast
from estimator_ckpt.text.quantities import counted
from estimator_ckpt.text.tables import print_table

EXIT_CODES = {0: "shown", 2: "an error: a wrong flag, no model_dir of a job"}
GROUPS = {"What is shown": "dry_run json", "Instead of the job's": " ".join(POLICY)}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb; the options are those of a job."""
    flags.DEFINE_boolean(
        "dry_run", False, "Needed, as this verb only shows.", flag_values=flag_values
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)
    for name in POLICY:
        define_one, arguments = FLAGS[name]
        default: Any = [] if name == "keep_best" else None
        define_one(name, flag_values=flag_values, **{**arguments, "default": default})


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Shows the fate of each checkpoint."""
    if len(arguments) != 1:
        raise UsageError(f"retention: expected one directory, found {len(arguments)}")
    if not flag_values.dry_run:
        raise UsageError(
            "retention: this shows what the job's next save would delete, and deletes nothing "
            "itself; add --dry_run"
        )
    given: dict[str, Any] = {name: flag_values[name].value for name in POLICY}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if "keep_best" in given:
        given["keep_best"] = parse_criteria(given["keep_best"], "--keep_best")
    try:
        found = forecast(arguments[0], given)
    except SettingsError as error:
        raise SettingsError(error.message, path=error.path, key=f"--{error.key}") from None
    if flag_values.json:
        print(json.dumps(_json(arguments[0], found), indent=2))
    else:
        _print(arguments[0], found)
    return EXIT_OK


def _policy(found: Forecast) -> dict[str, Any]:
    return {name: found.policy[name] for name in POLICY}


def _print(run: str, found: Forecast) -> None:
    policy = _policy(found)
    policy["keep_best"] = " ".join(map(str, criteria_of(policy["keep_best"]))) or None
    shown = [f"{name}={value}" for name, value in policy.items() if value not in (None, "")]
    print(f"{printable(run)}, by {found.known}: {', '.join(shown)}\n")
    rows = [
        [os.path.relpath(one.prefix, run), "goes" if one.goes else "stays", one.why]
        for one in found.fates
    ]
    goes = sum(one.goes for one in found.fates)
    total = f"{counted(goes, 'checkpoint')} of {len(rows):,} would go at the next save"
    print_table(["checkpoint", "next save", "why"], rows, total)


def _json(run: str, found: Forecast) -> dict[str, Any]:
    return {
        "path": run,
        "policy": _policy(found),
        "known_by": found.known,
        "checkpoints": [one._asdict() for one in found.fates],
    }
