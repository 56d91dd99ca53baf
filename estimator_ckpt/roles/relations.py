"""What more than one record of the table of optimizers says; see optimizers.py."""

from __future__ import annotations

from estimator_ckpt.roles.records import EXACT, LEGACY, NEWER, REFUSED, TF1, Newer, Relation

BETAS = ("beta_1", "beta_2")
ADAM_SLOTS = {"m": "m", "v": "v", "vhat": "vhat"}
ADAM_LISTS = {"m": "_momentums", "v": "_velocities", "vhat": "_velocity_hats"}
ADAM_ENDS = {"momentum": "m", "velocity": "v", "velocity_hat": "vhat"}
AMSGRAD = {"vhat": "amsgrad"}
NEWER_ADAM = Newer("Adam", ADAM_LISTS, ADAM_SLOTS, ADAM_ENDS, options=AMSGRAD)
NEWER_SGD = Newer("SGD", {"momentum": "momentums"}, {"m": "momentum"}, {"momentum": "momentum"})

# Of every optimizer of Keras 3 that adds up the gradients of several steps.
GRADIENTS = "gradient_accumulator"

ALL_PAIRS = ((TF1, LEGACY), (LEGACY, TF1), (TF1, NEWER), (NEWER, TF1), (LEGACY, NEWER))
AS_IT_IS = Relation(EXACT)
WITHIN_KERAS = {(NEWER, NEWER): AS_IT_IS}
STEPS = Relation(EXACT, needs=("iter",))
POWERS = Relation(EXACT, needs=("iter", *BETAS))

TIMES_RATE = "times -learning_rate, exact while that is constant"
TIMES_RATE_BACK = "divided by -learning_rate, exact while that is constant"


def refused(why: str, *pairs: tuple[str, str]) -> dict[tuple[str, str], Relation]:
    """The relations of an optimizer that is refused, for a reason: in all pairs, or in some."""
    return dict.fromkeys(pairs or ALL_PAIRS, Relation(REFUSED, why))
