"""The table of optimizers: all that knows optimizers derives from it, the page of the docs too.

The tests go through the table, so that an optimizer that is added to it is tested, too.
"""

from __future__ import annotations

import ast
import re
import types
from pathlib import Path

import numpy as np
import pytest
from conversion_files import write_bundle

import estimator_ckpt
from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.conversion.found_optimizer import Optimizer, SlotOf
from estimator_ckpt.conversion.optimizer_relations import filled_slots
from estimator_ckpt.conversion.plan import FLOAT32, Content, Item
from estimator_ckpt.errors import CheckpointError, UnsupportedCheckpointError
from estimator_ckpt.roles.dialects import BY_NAME, LEGACY_RECORDS, NEWER_RECORDS, POWER_OF
from estimator_ckpt.roles.optimizers import LOSS_SCALES, OPTIMIZERS
from estimator_ckpt.roles.records import EXACT, LEGACY, NEWER, REFUSED, TF1
from estimator_ckpt.roles.training_state import TRAINING_STATE, state_by_names

PACKAGE = Path(estimator_ckpt.__file__).parent
# Where the records stand, and what several of them share.
TABLE = ("optimizers.py", "outside_tensorflow.py", "relations.py")
PAGE = PACKAGE.parent / "docs" / "optimizers.md"
KERNEL, BIAS = np.ones((4, 3), np.float32), np.ones(3, np.float32)
HALF = np.float32(0.5)
IN_TF1 = [one for one in OPTIMIZERS if one.tf1 is not None]
POWERS = dict.fromkeys(POWER_OF.values(), HALF)


def slots_in_tf1(one, variables):
    """What its slots are called, by the rule of slot_creator.py, and of what shape they are."""
    found = {}
    for name, value in variables.items():
        order = one.tf1.slots
        if one.tf1.orders:
            order = next(o for o in one.tf1.orders if (value.ndim > 1) == ("vr" in o))
        for count, slot in enumerate(order):
            shape = value.shape
            if slot in one.tf1.reduced:
                shape = shape[:-1] if slot == "vr" else shape[:-2] + shape[-1:]
            end = f"/{one.tf1.name}" + (f"_{count}" if count else "")
            found[name + end] = (np.full(shape, 0.25, np.float32), name, slot)
    return found


@pytest.mark.parametrize("one", IN_TF1, ids=lambda one: one.name)
def test_its_slots_are_known_dropped_and_never_warm_started_by_a_scope(one, tmp_path):
    variables = {"net/kernel": KERNEL, "net/bias": BIAS}
    slots = slots_in_tf1(one, variables)
    for end, slot in one.tf1.ends.items():
        reduced = slot in one.tf1.reduced
        slots[f"net/kernel{end}"] = (KERNEL[0] if reduced else KERNEL, "net/kernel", slot)
    own = POWERS if one.tf1.powers else {}
    values = {**variables, **{name: value for name, (value, _, _) in slots.items()}, **own}
    prefix = write_bundle(tmp_path / "m", values)
    found = open_checkpoint(prefix).variables
    assert {n: (v.slot_of, v.slot_name) for n, v in found.items() if v.slot_of} == {
        name: (variable, slot) for name, (_, variable, slot) in slots.items()
    }
    convert_checkpoint(prefix, tmp_path / "out", "saver", drop_slots=True)
    assert set(open_checkpoint(tmp_path / "out").variables) == set(variables)
    state = state_by_names({name: value.shape for name, value in values.items()})
    assert state.keys() == values.keys() - variables.keys()
    assert all(re.fullmatch(TRAINING_STATE, name) for name in state)


@pytest.mark.parametrize("one", IN_TF1, ids=lambda one: one.name)
def test_what_the_table_refuses_is_refused_by_name_with_the_reason(one, tmp_path):
    relation = one.relations.get((TF1, LEGACY))
    if relation is not None and relation.how != REFUSED:
        return  # test_convert_optimizers.py converts it
    slots = {name: value for name, (value, _, _) in slots_in_tf1(one, {"kernel": KERNEL}).items()}
    write_bundle(tmp_path / "m", {"kernel": KERNEL, **slots, "global_step": np.int64(5)})
    with pytest.raises(UnsupportedCheckpointError) as caught:
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "both", optimizer="keras")
    assert f"the state of {one.name} cannot be turned" in str(caught.value)
    assert relation is None or relation.why in str(caught.value)
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize(
    ("names", "slots"),
    [
        # Beside powers of betas a pair of names can only be Adam's, whatever it is called.
        ({"k/opt": "m", "k/opt_1": "v", "b/opt": "m", "b/opt_1": "v"}, 1),
        ({"k/train_op/my_adam": "m", "k/train_op/my_adam_1": "v"}, 1),
        ({"k/G": "m", "k/G_1": "v", "b/D": "m", "b/D_1": "v"}, 2),
        ({"k/Adam": "m", "k/Adam_1": "v", "b/D": "m", "b/D_1": "v"}, 2),
    ],
)
@pytest.mark.parametrize("end", ["", ":0"])
def test_an_adam_under_any_name_is_known_by_its_powers(names, slots, end, tmp_path):
    model = {f"k{end}": KERNEL, f"b{end}": BIAS}
    values = {f"{name}{end}": KERNEL if name[0] == "k" else BIAS for name in names}
    powers = {f"{n}{f'_{i}' if i else ''}{end}": HALF for n in POWERS for i in range(slots)}
    prefix = write_bundle(tmp_path / "m", {**model, **values, **powers})
    found = open_checkpoint(prefix).variables
    assert {name: v.slot_name for name, v in found.items() if v.slot_of} == {
        f"{name}{end}": slot for name, slot in names.items()
    }
    convert_checkpoint(prefix, tmp_path / "out", "saver", drop_slots=True)
    assert set(open_checkpoint(tmp_path / "out").variables) == set(model)


def test_two_averages_beside_an_adam_are_no_optimizer(tmp_path):
    slots = ("k/Adam", "k/Adam_1", "k/ema", "k/ema_1")
    prefix = write_bundle(tmp_path / "m", {"k": KERNEL, **dict.fromkeys(slots, KERNEL), **POWERS})
    result = convert_checkpoint(prefix, tmp_path / "out", "saver", drop_slots=True)
    assert set(open_checkpoint(tmp_path / "out").variables) == {"k", "k/ema", "k/ema_1"}
    assert "these may be slots, averages or masks: VARIABLE/ema." in result.warning


def test_of_another_optimizer_with_a_name_of_its_own_the_class_is_given(tmp_path, caplog):
    values = {"k": KERNEL, "k/opt": KERNEL, "b": BIAS, "b/opt": BIAS, "global_step": np.int64(3)}
    prefix = write_bundle(tmp_path / "m", values)
    convert_checkpoint(prefix, tmp_path / "out", "saver", drop_slots=True)
    assert "no variables of optimizers; by their names these may be slots" in caplog.text
    assert set(open_checkpoint(tmp_path / "out").variables) == set(values)
    with pytest.raises(CheckpointError, match=r"found no optimizer's slots.*VARIABLE/opt"):
        convert_checkpoint(prefix, tmp_path / "keras", "checkpoint", optimizer="keras")
    given = {"from_optimizer": "Momentum"}
    convert_checkpoint(prefix, tmp_path / "less", "saver", drop_slots=True, **given)
    assert set(open_checkpoint(tmp_path / "less").variables) == {"k", "b", "global_step"}
    rate = {"learning_rate": 0.5}
    convert_checkpoint(
        prefix, tmp_path / "keras", "checkpoint", optimizer="keras", hyperparameters=rate, **given
    )
    found = open_checkpoint(tmp_path / "keras")
    slot = found.get_tensor("var_list/k/.OPTIMIZER_SLOT/optimizer/momentum")
    np.testing.assert_array_equal(slot, -0.5 * KERNEL)


def test_a_legacy_keras_optimizer_with_a_name_of_its_own_is_known_by_its_count(tmp_path):
    own = {"mine/iter": np.int64(3), "mine/beta_1": HALF, "mine/beta_2": HALF, "mine/decay": HALF}
    values = {"net/k": KERNEL, "mine/net/k/m": KERNEL, "mine/net/k/v": KERNEL, **own}
    prefix = write_bundle(tmp_path / "m", values)
    assert open_checkpoint(prefix).variables["mine/net/k/m"].slot_of == "net/k"
    convert_checkpoint(prefix, tmp_path / "out", "saver", drop_slots=True)
    assert set(open_checkpoint(tmp_path / "out").variables) == {"net/k"}


def test_no_other_module_knows_an_optimizer_or_a_slot():
    """Adding one to the table is all that there is to do, as nothing else holds a list."""
    words = {name for _, one in LEGACY_RECORDS for name in (one.name, *one.also)}
    words |= {one.name for _, one in NEWER_RECORDS} | {one.name for one in OPTIMIZERS}
    words |= {one.tf1.name for one in IN_TF1} | set(POWER_OF.values())
    words |= {slot for one in IN_TF1 for slot in (*one.tf1.slots, *one.tf1.ends)}
    words |= {slot for _, one in LEGACY_RECORDS for slot in one.slots.values()}
    words |= {name for _, one in NEWER_RECORDS for name in (*one.lists.values(), *one.ends)}
    words |= {name for one in LOSS_SCALES for name in (*one.names.values(), one.inner)}
    words -= {"m", "v", "r", "c", "u", ""}  # too short to tell
    # What Keras' metrics keep and the norm of a vector are called as some slots are; what other
    # words mean is said there.
    words -= {"accumulator", "norm"}
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name in TABLE or path.parent.name == "examples":
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if strings & words:
            found[path.relative_to(PACKAGE).as_posix()] = sorted(strings & words)
    assert found == {}


# --- the page ---

DIALECTS = {TF1: "TF1", LEGACY: "Keras to 2.10", NEWER: "Keras since 2.11"}


def class_in(one, dialect):
    if dialect == TF1:
        return ", ".join(one.tf1.classes) if one.tf1 is not None else ""
    if dialect == LEGACY:
        return one.legacy.name if one.legacy is not None else ""
    return one.newer.name if one.newer is not None else ""


def table_of_relations():
    yield "| from | to | state | numbers | sparse gradients | what else |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in OPTIMIZERS:
        for (source, target), relation in one.relations.items():
            if not (class_in(one, source) and (class_in(one, target) or relation.how == REFUSED)):
                continue
            there = class_in(one, target) or "none"
            numbers = ", ".join([*relation.needs, *relation.positive])
            sparse = "differ" if relation.dense_only else "exact"
            how = relation.how
            if relation.late:
                how = "exact after many steps"
            cells = [
                f"{class_in(one, source)} ({DIALECTS[source]})",
                f"{there} ({DIALECTS[target]})",
                how,
                numbers,
                "" if how == REFUSED or (source, target) == (NEWER, NEWER) else sparse,
                relation.why,
            ]
            yield f"| {' | '.join(cells)} |"


def test_the_page_has_the_table_as_it_is():
    start, end = "<!-- table -->\n", "<!-- end of table -->\n"
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(start)
    there, _, _ = rest.partition(end)
    expected = "".join(f"{line}\n" for line in table_of_relations())
    assert there == expected, (
        f"{PAGE.name} is stale: PYTHONPATH=. python tests/test_roles.py writes it"
    )
    assert before
    assert EXACT in there


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- table -->\n", "<!-- end of table -->\n"
    before, _, rest = text.partition(start)
    table = "".join(f"{line}\n" for line in table_of_relations())
    PAGE.write_text(before + start + table + end + rest.partition(end)[2], encoding="utf-8")


def test_slots_that_are_added_stand_in_the_order_of_the_table():
    """A set has another order in each process, and with it the result other bytes."""
    record = BY_NAME["Adafactor"]
    to = types.SimpleNamespace(record=record, relation=record.relations[TF1, NEWER])
    items = [Item(Content(n, FLOAT32, (3,), 12), n, "") for n in ("b", "b/Adafactor")]
    optimizer = Optimizer("Adafactor", TF1, [SlotOf(1, 0, "v")])
    added = filled_slots(items, optimizer, to, ("optimizer",))
    assert [one.slot.name for one in added] == ["vr", "vc"]
