"""The optimizers: for each its classes, slots and numbers in every dialect, and what goes where.

This table is all that the package knows of single optimizers. Listings, warm starts, checks and
conversions derive from it, and so does docs/optimizers.md; a new optimizer is a new record here.

A slot is called the same in all dialects of a record, as TF1 calls it where TF1 has it; the record
says what the others call it. Sources: for TF1 the _create_slots() of each optimizer
(tensorflow/python/training, tf.contrib.opt, and the repositories that are named); for Keras up to
2.10 keras/src/optimizers/legacy; for later ones build() of each in keras/src/optimizers.
"""

from __future__ import annotations

from estimator_ckpt.roles.records import (
    EXACT,
    LEGACY,
    NEWER,
    REFUSED,
    SCALED,
    TF1,
    Legacy,
    LossScale,
    Newer,
    Optimizer,
    Relation,
    Tf1,
)

_ADAM_LISTS = {"m": "_momentums", "v": "_velocities", "vhat": "_velocity_hats"}
_AMSGRAD = {"vhat": "amsgrad"}
_ADAM_ENDS = ("m", "v", "vhat", "momentum", "velocity", "velocity_hat")
_ADAM_SLOTS = {"m": "m", "v": "v", "vhat": "vhat"}
_NEWER_ADAMW = Newer("AdamW", _ADAM_LISTS, _ADAM_ENDS, options=_AMSGRAD, taken_for="Adam")
_BETAS = ("beta_1", "beta_2")
_RMS_LISTS = {"rms": "_velocities", "momentum": "_momentums", "mg": "_average_gradients"}
_RMS_ENDS = ("velocity", "momentum", "average_gradient")
_SGD_LISTS = {"momentum": "momentums"}

_ALL_PAIRS = ((TF1, LEGACY), (LEGACY, TF1), (TF1, NEWER), (NEWER, TF1), (LEGACY, NEWER))
_STEPS = Relation(EXACT, needs=("iter",))
_POWERS = Relation(EXACT, needs=("iter", *_BETAS))
_AS_IT_IS = Relation(EXACT)
_WITHIN_KERAS = {(NEWER, NEWER): _AS_IT_IS}

_DECAY = (
    "the weight decay is the program's: Keras multiplies it by the learning rate, contrib and "
    "addons do not"
)
_RATE = "times -learning_rate, exact while that is constant"
_RATE_BACK = "divided by -learning_rate, exact while that is constant"
_EPSILON = (
    "without momentum Keras adds epsilon outside of the root, where the others add it inside, and "
    "no state makes them equal"
)


def _refused(why: str, *pairs: tuple[str, str]) -> dict[tuple[str, str], Relation]:
    return dict.fromkeys(pairs or _ALL_PAIRS, Relation(REFUSED, why))


def _rms_relations() -> dict[tuple[str, str], Relation]:
    with_momentum = Relation(EXACT, _EPSILON, with_slots=("momentum",))
    return {
        (TF1, LEGACY): Relation(EXACT, _EPSILON, positive=("momentum",)),
        (LEGACY, TF1): with_momentum,
        (TF1, NEWER): Relation(EXACT, dense_only=True),
        (NEWER, TF1): Relation(EXACT, dense_only=True, unused=("momentum",)),
        (LEGACY, NEWER): with_momentum._replace(dense_only=True),
        **_WITHIN_KERAS,
    }


OPTIMIZERS = (
    Optimizer(
        "Adam",
        Tf1("Adam", ("m", "v"), ("tf.compat.v1.train.AdamOptimizer",), _BETAS),
        Legacy("Adam", _ADAM_SLOTS, _BETAS),
        Newer("Adam", _ADAM_LISTS, _ADAM_ENDS, options=_AMSGRAD),
        {
            (TF1, LEGACY): _STEPS,
            (LEGACY, TF1): _POWERS,
            (TF1, NEWER): _STEPS,
            (NEWER, TF1): _POWERS,
            (LEGACY, NEWER): _AS_IT_IS,
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "LazyAdam",
        Tf1("LazyAdam", ("m", "v"), ("tf.contrib.opt.LazyAdamOptimizer",), _BETAS),
        Legacy("LazyAdam", _ADAM_SLOTS, _BETAS),
        Newer("Adam", _ADAM_LISTS, _ADAM_ENDS, options=_AMSGRAD),
        {
            **_refused(
                "of Keras' legacy optimizers it would be an Adam, which treats rows without "
                "gradients in another way",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            (TF1, NEWER): _STEPS._replace(dense_only=True),
        },
    ),
    Optimizer(
        "AdamW",
        Tf1("AdamW", ("m", "v"), ("tf.contrib.opt.AdamWOptimizer",), _BETAS),
        Legacy("AdamW", _ADAM_SLOTS, (*_BETAS, "weight_decay"), ("AdamWeightDecay",)),
        _NEWER_ADAMW,
        {
            **_refused(
                "Keras' own legacy optimizers have no AdamW; those since 2.11 have",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            (TF1, NEWER): _STEPS._replace(why=_DECAY),
            (NEWER, TF1): _POWERS._replace(why=_DECAY),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "AdamWeightDecayOptimizer",
        Tf1(
            "AdamWeightDecayOptimizer",
            ("m", "v"),
            ("AdamWeightDecayOptimizer of BERT",),
            ends={"/adam_m": "m", "/adam_v": "v"},
        ),
        newer=_NEWER_ADAMW,
        relations={
            **_refused("Keras' legacy optimizers have no AdamW of their own", (TF1, LEGACY)),
            (TF1, NEWER): Relation(
                EXACT,
                "BERT's does not correct the bias of m and v, as Keras' does",
                needs=("iter",),
                late=True,
            ),
        },
    ),
    Optimizer(
        "LAMBOptimizer",
        Tf1(
            "LAMBOptimizer",
            ("m", "v"),
            ("LAMBOptimizer of the model repositories",),
            ends={"/lamb_m": "m", "/lamb_v": "v", "/adam_m": "m", "/adam_v": "v"},
        ),
        Legacy("LAMB", {"m": "m", "v": "v"}, _BETAS),
        Newer(
            "Lamb",
            {"m": "_momentums", "v": "_velocities"},
            ("momentum", "velocity"),
            only_keras_3=True,
        ),
        {
            **_refused(
                "LAMB's weight decay is a part of its trust ratio, the one of Keras' Lamb is not, "
                "and some LAMBs correct the bias of m and v"
            ),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "LARSOptimizer",
        Tf1("LARSOptimizer", ("momentum",), ("tf.contrib.opt.LARSOptimizer",)),
        relations=_refused("Keras has no LARS: its SGD has one learning rate for all variables"),
    ),
    Optimizer(
        "Momentum",
        Tf1("Momentum", ("momentum",), ("tf.compat.v1.train.MomentumOptimizer",)),
        Legacy("SGD", {"momentum": "momentum"}, ("momentum",)),
        Newer("SGD", _SGD_LISTS, ("m", "momentum")),
        {
            (TF1, LEGACY): Relation(SCALED, _RATE, ("learning_rate",)),
            (LEGACY, TF1): Relation(SCALED, _RATE_BACK, ("learning_rate",)),
            (TF1, NEWER): Relation(SCALED, _RATE, ("learning_rate",), dense_only=True),
            (NEWER, TF1): Relation(SCALED, _RATE_BACK, ("learning_rate",), dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "MomentumW",
        Tf1("MomentumW", ("momentum",), ("tf.contrib.opt.MomentumWOptimizer",)),
        Legacy("SGDW", {"momentum": "momentum"}, ("momentum", "weight_decay")),
        Newer("SGD", _SGD_LISTS, ("m", "momentum")),
        {
            **_refused(
                "Keras' own legacy optimizers have no SGDW; the SGD since 2.11 has a weight decay",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            (TF1, NEWER): Relation(
                SCALED, f"{_RATE}; {_DECAY}", ("learning_rate",), dense_only=True
            ),
        },
    ),
    Optimizer(
        "RMSProp",
        Tf1("RMSProp", ("rms", "momentum"), ("tf.compat.v1.train.RMSPropOptimizer",)),
        Legacy("RMSprop", {"rms": "rms", "momentum": "momentum"}, ("rho", "momentum")),
        Newer("RMSprop", _RMS_LISTS, _RMS_ENDS),
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
        Newer("RMSprop", _RMS_LISTS, _RMS_ENDS),
        _rms_relations(),
    ),
    Optimizer(
        "Adagrad",
        Tf1("Adagrad", ("accumulator",), ("tf.compat.v1.train.AdagradOptimizer",)),
        Legacy("Adagrad", {"accumulator": "accumulator"}),
        Newer("Adagrad", {"accumulator": "_accumulators"}, ("accumulator",)),
        {
            **dict.fromkeys(
                _ALL_PAIRS, Relation(EXACT, "TF1's has no epsilon: an epsilon of 1e-30 is none")
            ),
            (LEGACY, NEWER): Relation(EXACT, "exact with an epsilon of 1e-30: it stands elsewhere"),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Adadelta",
        Tf1("Adadelta", ("accum", "accum_update"), ("tf.compat.v1.train.AdadeltaOptimizer",)),
        Legacy("Adadelta", {"accum": "accum_grad", "accum_update": "accum_var"}, ("rho",)),
        Newer(
            "Adadelta",
            {"accum": "_accumulated_grads", "accum_update": "_accumulated_delta_vars"},
            ("accumulated_grad", "accumulated_delta_var"),
        ),
        {
            (TF1, LEGACY): _AS_IT_IS,
            (LEGACY, TF1): _AS_IT_IS,
            (TF1, NEWER): Relation(EXACT, dense_only=True),
            (NEWER, TF1): Relation(EXACT, dense_only=True),
            **_WITHIN_KERAS,
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
            ("accumulator", "gradient_accumulator", "linear"),
        ),
        {
            (TF1, LEGACY): _AS_IT_IS,
            (LEGACY, TF1): _AS_IT_IS,
            # Keras' sets rows of embeddings that no gradient ever hit to 0; TF1's leaves them.
            (TF1, NEWER): Relation(EXACT, dense_only=True),
            (NEWER, TF1): Relation(EXACT, dense_only=True),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "AdaMax",
        Tf1("AdaMax", ("m", "v"), ("tf.contrib.opt.AdaMaxOptimizer",), ("beta_1",)),
        Legacy("Adamax", {"m": "m", "v": "v"}, _BETAS),
        Newer("Adamax", {"m": "_m", "v": "_u"}, ("m", "u", "momentum", "norm")),
        {
            **_refused(
                "nothing shows that TF1's AdaMax and Keras' Adamax go on alike",
                *_ALL_PAIRS[:4],
            ),
            (LEGACY, NEWER): _AS_IT_IS,
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Nadam",
        Tf1("Nadam", ("m", "v"), ("tf.contrib.opt.NadamOptimizer",), _BETAS),
        Legacy("Nadam", {"m": "m", "v": "v"}, (*_BETAS, "momentum_cache")),
        Newer(
            "Nadam",
            {"m": "_momentums", "v": "_velocities"},
            ("m", "v", "momentum", "velocity"),
            own=("_u_product",),
        ),
        {
            **_refused("each has a schedule of its momentum of its own"),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Adafactor",
        Tf1(
            "Adafactor",
            ("vr", "vc", "v", "m"),
            ("AdafactorOptimizer of tensor2tensor and Mesh TensorFlow",),
            ends={"_slot_vr": "vr", "_slot_vc": "vc", "_slot_v": "v", "_slot_m": "m"},
            orders=(("vr", "vc"), ("m", "vr", "vc"), ("m", "v"), ("v",)),
            reduced=("vr", "vc"),
        ),
        newer=Newer(
            "Adafactor",
            {"vr": "_r", "vc": "_c", "v": "_v"},
            ("r", "c", "v", "row", "col", "velocity"),
        ),
        relations={
            **_refused(
                "its decay, its scale and which variables it factors are the program's, and "
                "Keras' Adafactor has others",
                *((TF1, LEGACY), (TF1, NEWER), (NEWER, TF1)),
            ),
            **_WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Lion",
        newer=Newer(
            "Lion",
            {"momentum": "_momentums"},
            ("m", "momentum"),
            lists_in_keras_2={"momentum": "momentums"},
        ),
        relations=_WITHIN_KERAS,
    ),
    Optimizer(
        "RectifiedAdam",
        legacy=Legacy(
            "RectifiedAdam",
            _ADAM_SLOTS,
            (
                *(*_BETAS, "weight_decay", "sma_threshold"),
                *("total_steps", "warmup_proportion", "min_lr"),
            ),
        ),
    ),
    Optimizer(
        "Muon",
        newer=Newer(
            "Muon",
            {"momentum": "momentums", "v": "adam_velocities"},
            ("momentum", "velocity"),
            only_keras_3=True,
        ),
    ),
    Optimizer(
        "ScheduleFreeAdamW",
        newer=Newer(
            "ScheduleFreeAdamW",
            {"m": "_momentums", "v": "_velocities"},
            ("momentum", "velocity"),
            only_keras_3=True,
        ),
        relations=_refused("its weights are not those that it is evaluated with", (NEWER, TF1)),
    ),
    Optimizer(
        "ProximalAdagrad",
        Tf1("ProximalAdagrad", ("accumulator",), ("tf.compat.v1.train.ProximalAdagradOptimizer",)),
        relations=_refused("Keras' Adagrad has no proximal step"),
    ),
    Optimizer(
        "AdagradDA",
        Tf1(
            "AdagradDA",
            ("gradient_accumulator", "gradient_squared_accumulator"),
            ("tf.compat.v1.train.AdagradDAOptimizer",),
        ),
        relations=_refused("Keras has no AdagradDA"),
    ),
    Optimizer(
        "AddSign",
        Tf1("AddSignOptimizer", ("m",), ("tf.contrib.opt.AddSignOptimizer",)),
        relations=_refused("Keras has no AddSign"),
    ),
    Optimizer(
        "PowerSign",
        Tf1("PowerSignOptimizer", ("m",), ("tf.contrib.opt.PowerSignOptimizer",)),
        relations=_refused("Keras has no PowerSign"),
    ),
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
