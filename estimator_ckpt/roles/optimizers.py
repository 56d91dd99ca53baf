"""The optimizers: for each its classes, slots and numbers in every dialect, and what goes where.

This table is all that the package knows of single optimizers. Listings, warm starts, checks and
conversions derive from it, and so does docs/optimizers.md; a new optimizer is a new record here.

A slot is called the same in all dialects of a record, as TF1 calls it where TF1 has it; the record
says what the others call it. Sources: for TF1 the _create_slots() of each optimizer
(tensorflow/python/training, tf.contrib.opt, and the repositories that are named); for Keras up to
2.10 keras/src/optimizers/legacy; for later ones build() of each in keras/src/optimizers.
"""

from __future__ import annotations

from estimator_ckpt.roles.outside_tensorflow import OUTSIDE
from estimator_ckpt.roles.records import (
    EXACT,
    LEGACY,
    NEWER,
    SCALED,
    TF1,
    Legacy,
    LossScale,
    Newer,
    Optimizer,
    Relation,
    Tf1,
)
from estimator_ckpt.roles.relations import (
    ADAM_ENDS,
    ADAM_SLOTS,
    ALL_PAIRS,
    AS_IT_IS,
    BETAS,
    NEWER_ADAM,
    NEWER_SGD,
    POWERS,
    STEPS,
    TIMES_RATE,
    TIMES_RATE_BACK,
    WITHIN_KERAS,
    refused,
)

_RMS_LISTS = {"rms": "_velocities", "momentum": "_momentums", "mg": "_average_gradients"}
_RMS_NAMES = {"velocity": "rms", "momentum": "momentum", "average_gradient": "mg"}
_NEWER_RMS = Newer("RMSprop", _RMS_LISTS, _RMS_NAMES, _RMS_NAMES, empty=("momentum", "mg"))
_ACCUMULATOR = {"accumulator": "accumulator"}
_DELTA_NAMES = {"accumulated_grad": "accum", "accumulated_delta_var": "accum_update"}
_FTRL_NAMES = {"accumulator": "accum", "linear": "linear"}
_EPSILON = (
    "without momentum Keras adds epsilon outside of the root, where the others add it inside, and "
    "no state makes them equal"
)


def _rms_relations() -> dict[tuple[str, str], Relation]:
    with_momentum = Relation(EXACT, _EPSILON, with_slots=("momentum",))
    return {
        (TF1, LEGACY): Relation(EXACT, _EPSILON, positive=("momentum",)),
        (LEGACY, TF1): with_momentum,
        (TF1, NEWER): Relation(EXACT, dense_only=True),
        (NEWER, TF1): Relation(EXACT, dense_only=True, unused=("momentum",)),
        (LEGACY, NEWER): with_momentum._replace(dense_only=True),
        **WITHIN_KERAS,
    }


OPTIMIZERS = (
    Optimizer(
        "Adam",
        Tf1("Adam", ("m", "v"), ("tf.compat.v1.train.AdamOptimizer",), BETAS),
        Legacy("Adam", ADAM_SLOTS, BETAS),
        NEWER_ADAM,
        {
            (TF1, LEGACY): STEPS,
            (LEGACY, TF1): POWERS,
            (TF1, NEWER): STEPS,
            (NEWER, TF1): POWERS,
            (LEGACY, NEWER): AS_IT_IS,
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Momentum",
        Tf1("Momentum", ("momentum",), ("tf.compat.v1.train.MomentumOptimizer",)),
        Legacy("SGD", {"momentum": "momentum"}, ("momentum",)),
        NEWER_SGD,
        {
            (TF1, LEGACY): Relation(SCALED, TIMES_RATE, ("learning_rate",)),
            (LEGACY, TF1): Relation(SCALED, TIMES_RATE_BACK, ("learning_rate",)),
            (TF1, NEWER): Relation(SCALED, TIMES_RATE, ("learning_rate",), dense_only=True),
            (NEWER, TF1): Relation(SCALED, TIMES_RATE_BACK, ("learning_rate",), dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "RMSProp",
        Tf1("RMSProp", ("rms", "momentum"), ("tf.compat.v1.train.RMSPropOptimizer",)),
        Legacy("RMSprop", {"rms": "rms", "momentum": "momentum"}, ("rho", "momentum")),
        _NEWER_RMS,
        _rms_relations(),
    ),
    Optimizer(
        "CenteredRMSProp",
        Tf1(
            "RMSProp",
            ("rms", "mg", "momentum"),
            ("tf.compat.v1.train.RMSPropOptimizer(centered=True)",),
        ),
        Legacy("RMSprop", {"rms": "rms", "mg": "mg", "momentum": "momentum"}, ("rho", "momentum")),
        _NEWER_RMS,
        _rms_relations(),
    ),
    Optimizer(
        "Adagrad",
        Tf1("Adagrad", ("accumulator",), ("tf.compat.v1.train.AdagradOptimizer",)),
        Legacy("Adagrad", {"accumulator": "accumulator"}),
        Newer("Adagrad", {"accumulator": "_accumulators"}, _ACCUMULATOR, _ACCUMULATOR),
        {
            **dict.fromkeys(
                ALL_PAIRS, Relation(EXACT, "TF1's has no epsilon: an epsilon of 1e-30 is none")
            ),
            (LEGACY, NEWER): Relation(EXACT, "exact with an epsilon of 1e-30: it stands elsewhere"),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Adadelta",
        Tf1("Adadelta", ("accum", "accum_update"), ("tf.compat.v1.train.AdadeltaOptimizer",)),
        Legacy("Adadelta", {"accum": "accum_grad", "accum_update": "accum_var"}, ("rho",)),
        Newer(
            "Adadelta",
            {"accum": "_accumulated_grads", "accum_update": "_accumulated_delta_vars"},
            _DELTA_NAMES,
            _DELTA_NAMES,
        ),
        {
            (TF1, LEGACY): AS_IT_IS,
            (LEGACY, TF1): AS_IT_IS,
            (TF1, NEWER): Relation(EXACT, dense_only=True),
            (NEWER, TF1): Relation(EXACT, dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Ftrl",
        Tf1("Ftrl", ("accum", "linear"), ("tf.compat.v1.train.FtrlOptimizer",)),
        Legacy(
            "Ftrl",
            {"accum": "accumulator", "linear": "linear"},
            (
                *("learning_rate_power", "l1_regularization_strength"),
                *("l2_regularization_strength", "beta"),
            ),
        ),
        Newer(
            "Ftrl",
            {"accum": "_accumulators", "linear": "_linears"},
            _FTRL_NAMES,
            _FTRL_NAMES,
        ),
        {
            (TF1, LEGACY): AS_IT_IS,
            (LEGACY, TF1): AS_IT_IS,
            # Keras' sets rows of embeddings that no gradient ever hit to 0; TF1's leaves them.
            (TF1, NEWER): Relation(EXACT, dense_only=True),
            (NEWER, TF1): Relation(EXACT, dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Lion",
        newer=Newer(
            "Lion",
            {"momentum": "_momentums"},
            {"m": "momentum"},
            {"momentum": "momentum"},
            lists_in_keras_2={"momentum": "momentums"},
        ),
        relations=WITHIN_KERAS,
    ),
    Optimizer(
        "Muon",
        newer=Newer(
            "Muon",
            {"momentum": "momentums", "v": "adam_velocities"},
            {},
            {"momentum": "momentum", "velocity": "v"},
            only_keras_3=True,
        ),
    ),
    Optimizer(
        "ScheduleFreeAdamW",
        newer=Newer(
            "ScheduleFreeAdamW",
            {"m": "_momentums", "v": "_velocities"},
            {},
            ADAM_ENDS,
            only_keras_3=True,
        ),
        relations=refused("its weights are not those that it is evaluated with", (NEWER, TF1)),
    ),
    Optimizer(
        "ProximalAdagrad",
        Tf1("ProximalAdagrad", ("accumulator",), ("tf.compat.v1.train.ProximalAdagradOptimizer",)),
        relations=refused("Keras' Adagrad has no proximal step"),
    ),
    Optimizer(
        "AdagradDA",
        Tf1(
            "AdagradDA",
            ("gradient_accumulator", "gradient_squared_accumulator"),
            ("tf.compat.v1.train.AdagradDAOptimizer",),
        ),
        relations=refused("Keras has no AdagradDA"),
    ),
    *OUTSIDE,
)

# The scale and how many steps have been good with it mean the same in all of them
# (tensorflow/python/training/experimental/loss_scale_optimizer.py, and that of each Keras).
_SCALE = {"scale": "current_loss_scale", "good_steps": "good_steps"}
_SCALE_PATHS = {number: ("loss_scale", name) for number, name in _SCALE.items()}
LOSS_SCALES = (
    LossScale("LossScaleOptimizer of Keras 2 and tf_keras", "", _SCALE, _SCALE_PATHS),
    LossScale("MixedPrecisionLossScaleOptimizer of TF1", "base_optimizer", _SCALE, _SCALE_PATHS),
    LossScale(
        "LossScaleOptimizer of Keras 3",
        "inner_optimizer",
        {"scale": "dynamic_scale", "good_steps": "step_counter"},
        {"scale": ("dynamic_scale",), "good_steps": ("step_counter",)},
        scope="loss_scale_optimizer",
    ),
)
