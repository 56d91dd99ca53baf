"""What each verb of files loads for a small task: not what only other tasks need.

That keeps its start short; benchmarks/starts.py measures it.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from own_files import save

import estimator_ckpt
from estimator_ckpt import convert_checkpoint, export_checkpoint

HEAVY = "numpy rich tensorflow absl.logging msgspec yaml ml_dtypes cramjam zipfile socket asyncio"
TEMPLATES = "conversion.like conversion.misfits conversion.template_places matching.resolve"
OPTIMIZERS = "conversion.relink conversion.translate_optimizer conversion.optimizer_relations"
OTHER_OPTIONS = "conversion.slots_follow conversion.use_averages"
TREES = "conversion.batch conversion.trees beam"
CONVERSIONS = f"{TEMPLATES} {OPTIMIZERS} {OTHER_OPTIONS} {TREES}"
ALL = "conversion saving.saver jobs warm_starting"

# Verb and arguments -> which modules of the package it does without. {ckpt}, {template} and {file}
# are given, {new} is a new name.
TASKS = {
    "inspect {ckpt}": f"{ALL} matching",
    "verify {ckpt}": f"{ALL} matching",
    "compare {ckpt} {ckpt}": f"{ALL} matching",
    "check --model={ckpt} {ckpt}": ALL,
    "convert --help": CONVERSIONS,
    "convert --checkpoint_format=both {ckpt} {new}": CONVERSIONS,
    "convert --checkpoint_format=checkpoint --like={template} {ckpt} {new}": (
        f"{OPTIMIZERS.partition(' ')[0]} {OTHER_OPTIONS} {TREES}"
    ),
    "export {ckpt} {new}.safetensors": CONVERSIONS,
    "import --checkpoint_format=saver {file} {new}": CONVERSIONS,
}

_RUN = """
import sys
from estimator_ckpt.cli import main
code = main(sys.argv[1:])
print(repr((code, sorted(sys.modules))), file=sys.stderr)
"""


@pytest.mark.parametrize("task", TASKS)
def test_a_verb_loads_what_its_task_needs(task: str, tmp_path: Path) -> None:
    ckpt = save(tmp_path / "model.ckpt-7", {"dense/kernel": [[1.0, 2.0]], "dense/bias": [1.0]})
    template, file = str(tmp_path / "template"), str(tmp_path / "file.safetensors")
    convert_checkpoint(ckpt, template, "checkpoint", layout="scopes")
    export_checkpoint(ckpt, file)
    words = task.format(ckpt=ckpt, template=template, file=file, new=tmp_path / "new").split()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        cwd=Path(estimator_ckpt.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    code, loaded = ast.literal_eval(done.stderr.splitlines()[-1])
    assert code == 0
    without = {f"estimator_ckpt.{name}" for name in TASKS[task].split()}
    assert [name for name in without if importlib.util.find_spec(name) is None] == []
    assert {name for name in loaded if name.split(".")[0] == "estimator_ckpt"} & without == set()
    assert set(HEAVY.split()).intersection(loaded) == set()
