"""The layout: floors, no import upwards, no circles, TensorFlow only where it is marked."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import estimator_ckpt

PACKAGE = Path(estimator_ckpt.__file__).parent
ROOT = "estimator_ckpt"


def _modules(names: str) -> set[str]:
    return {f"{ROOT}.{name}" for name in names.split()}


# A room (a directory) or a door (a module of the top level) imports from those in lines above it
# alone, and modules of a room from each other without a circle.
FLOORS = """
bulk configs errors formats
text
loading
files
bundle
objects
roles
reading
checkpoint
matching
options verify
kept
conversion
convert
manager saving
warm_starting
warm_start
checking
beam
check compare exchange
pages
export importing report tensorboard_plugin
pins best
scaffold
jobs
model_fn
flags
train
cli
commands
.
examples __main__
""".strip().splitlines()

# These import TensorFlow when they are imported; the others inside a function, or not at all.
WITH_TENSORFLOW = _modules("""
    model_fn scaffold examples.cluster examples.digits examples.eager_both examples.keras_port
    examples.new_head examples.tpu_estimator jobs.best_hook jobs.dry_run jobs.input_hook
    jobs.moved_job
    jobs.running jobs.stopping jobs.training_hooks saving.background saving.built
    saving.checkpoint_lists saving.contents saving.given saving.graph_contents saving.graph_ops
    saving.images saving.initial_values saving.input_ops saving.input_position saving.keeping
    saving.meta_graph_files saving.on_disk saving.pipelines saving.tf_data_internals
    saving.other_savers saving.readiness saving.saveables saving.saver
    saving.session_internals saving.snapshots saving.staging saving.steps
    saving.tf_internals saving.upstream warm_starting.fitted_parts warm_starting.graph_optimizers
    warm_starting.reset
    warm_starting.starter
""")
TENSORFLOW_INSIDE = _modules("""
    check flags manager train warm_start checking.model checking.restore files.remote
    matching.counted matching.eager matching.kinds matching.live matching.live_optimizers
    matching.lookup_tables text.logs
    warm_starting.deferred warm_starting.eager warm_starting.stock_settings
""")


def floor(module: str) -> int:
    """The line of FLOORS that its room, or the door itself, stands in; -1 if none does."""
    room = module.split(".")[1] if module != ROOT else "."
    return next((number for number, line in enumerate(FLOORS) if room in line.split()), -1)


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The parsed source of every module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(
    node: ast.AST, inside: bool = False, for_types: bool = False
) -> Iterator[tuple[str, bool]]:
    """(what is imported, whether inside a function); with `for_types`, also for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports are absolute"
            yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
        elif isinstance(child, ast.If) and "__main__" in ast.dump(child.test):
            continue  # it runs as a script, not as a part of the house
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            if for_types:  # it never runs
                yield from imports(child, True, for_types)
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(child, inside or function, for_types)


@functools.cache
def defined(module: str) -> set[str]:
    """The names that a module defines, or says that it hands on (`import X as X`)."""
    found = set()
    for node in ast.walk(trees()[module]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere."""
    found = set()
    for name, _ in imports(trees()[module], for_types=True):
        while name.startswith(ROOT) and name not in trees():
            name = name.rpartition(".")[0]  # a function, a class, a constant of a module
        if name.startswith(ROOT):
            found.add(name)
    return found - {module}


def test_every_module_has_a_floor() -> None:
    assert [module for module in sorted(trees()) if floor(module) < 0] == []


def test_every_line_names_what_is_there() -> None:
    rooms = {module.split(".")[1] for module in trees() if module != ROOT}
    assert sorted(" ".join(FLOORS).split()) == sorted(rooms | {"."})
    assert (WITH_TENSORFLOW | TENSORFLOW_INSIDE) - trees().keys() == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_file_that_passes_400_lines_is_two(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", sorted(trees()))
def test_no_module_imports_from_a_floor_above(module: str) -> None:
    if module == ROOT:
        return  # it only knows where the public names live
    above = {name for name in own_imports(module) if floor(name) > floor(module)}
    assert above == set()


def test_imports_go_round_in_no_circle() -> None:
    needs = {module: own_imports(module) for module in trees() if module != ROOT}
    while True:  # takes away what needs nothing that is left, and what nothing left needs
        needed = set().union(*needs.values())
        free = [name for name, own in needs.items() if not own & needs.keys() or name not in needed]
        if not free:
            break
        for name in free:
            del needs[name]
    assert sorted(needs) == [], "these import each other"


def test_a_name_is_imported_from_the_module_that_defines_it() -> None:
    """A room that is a package may hand on what its modules define, and the package itself does."""
    doors = {ROOT, f"{ROOT}.files"}
    second_homes = set()
    for module, tree in trees().items():
        for name, _ in imports(tree, for_types=True):
            home, _, what = name.rpartition(".")
            is_own = home in trees() and name not in trees() and home not in doors
            if is_own and what not in defined(home):
                second_homes.add((module, name))
    assert second_homes == set()


@pytest.mark.parametrize("module", sorted(trees()))
def test_tensorflow_is_imported_where_it_is_marked_only(module: str) -> None:
    found = {inside for name, inside in imports(trees()[module]) if name.startswith("tensorflow")}
    if module in WITH_TENSORFLOW:
        assert False in found or own_imports(module) & WITH_TENSORFLOW
    elif module in TENSORFLOW_INSIDE:
        assert False not in found
    else:
        assert found == set()


@pytest.mark.parametrize("module", sorted(trees().keys() - WITH_TENSORFLOW))
def test_tensorflow_is_marked_where_it_comes_with_another_module(module: str) -> None:
    """What loads without TensorFlow imports nothing, on loading, that does not."""
    direct = {name for name, inside in imports(trees()[module]) if not inside}
    loaded = {name if name in trees() else name.rpartition(".")[0] for name in direct}
    assert loaded & WITH_TENSORFLOW == set()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import estimator_ckpt", ["absl", "google.protobuf", "numpy", "rich", "tensorflow"]),
        ("import estimator_ckpt.cli", ["numpy", "rich", "tensorflow"]),
        ("from estimator_ckpt import open_checkpoint", ["numpy", "rich", "tensorflow"]),
        ("from estimator_ckpt import verify_checkpoint, compare_checkpoints", ["tensorflow"]),
    ],
)
def test_what_loads_without_heavy_packages(statement: str, absent: list[str]) -> None:
    code = f"{statement}; import sys; print([n for n in {absent} if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        check=True,
        text=True,
    )
    assert result.stdout.strip() == "[]"


# --- the public names ---


def public_assignments() -> dict[str, list[str]]:
    """`__all__` and the keys of `_HOMES`, in the order in which they are written."""
    found = {}
    for node in trees()[ROOT].body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and node.value is not None:
                if target.id == "__all__":
                    found["__all__"] = ast.literal_eval(node.value)
                elif target.id == "_HOMES":
                    found["_HOMES"] = list(ast.literal_eval(node.value))
    return found


def test_public_names_are_sorted_and_complete() -> None:
    found = public_assignments()
    assert found["__all__"] == sorted(found["__all__"])
    assert found["_HOMES"] == found["__all__"]
    typed_imports = imports(trees()[ROOT], for_types=True)
    typed = {name.rpartition(".")[2] for name, _ in typed_imports if name.startswith(ROOT)}
    assert typed == set(found["__all__"])


@pytest.mark.parametrize("name", estimator_ckpt.__all__)
def test_public_names_have_docstrings(name: str) -> None:
    if f"{ROOT}.{estimator_ckpt._HOMES[name]}" in WITH_TENSORFLOW:
        import tensorflow  # noqa: F401 (or skip)
    public = getattr(estimator_ckpt, name)
    assert public.__name__ == name
    assert public.__doc__
    assert name in dir(estimator_ckpt)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'open_chekpoint'"):
        estimator_ckpt.open_chekpoint  # noqa: B018
