"""Optimizers from outside of TensorFlow: those of contrib, Addons and the model repositories.

Some of Keras' own stand here, too: those that TF1 had from outside, or Keras' legacy ones.
"""

from __future__ import annotations

from estimator_ckpt.roles.records import (
    EXACT,
    LEGACY,
    NEWER,
    SCALED,
    TF1,
    Legacy,
    Newer,
    Optimizer,
    Relation,
    Tf1,
)
from estimator_ckpt.roles.relations import (
    ADAM_ENDS,
    ADAM_LISTS,
    ADAM_SLOTS,
    AMSGRAD,
    BETAS,
    NEWER_ADAM,
    NEWER_SGD,
    POWERS,
    STEPS,
    TIMES_RATE,
    WITHIN_KERAS,
    refused,
)

_NEWER_ADAMW = Newer("AdamW", ADAM_LISTS, ADAM_SLOTS, ADAM_ENDS, options=AMSGRAD, taken_for="Adam")
_POWER = Relation(EXACT, needs=("iter", "beta_1"))
_DECAY = (
    "the weight decay is the program's: Keras multiplies it by the learning rate, contrib and "
    "addons do not"
)

OUTSIDE = (
    Optimizer(
        "LazyAdam",
        Tf1("LazyAdam", ("m", "v"), ("tf.contrib.opt.LazyAdamOptimizer",), BETAS),
        Legacy("LazyAdam", ADAM_SLOTS, BETAS),
        NEWER_ADAM,
        {
            **refused(
                "of Keras' legacy optimizers it would be an Adam, which treats rows without "
                "gradients in another way",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            (TF1, NEWER): STEPS._replace(dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
        },
    ),
    Optimizer(
        "AdamW",
        Tf1("AdamW", ("m", "v"), ("tf.contrib.opt.AdamWOptimizer",), BETAS),
        Legacy("AdamW", ADAM_SLOTS, (*BETAS, "weight_decay"), ("AdamWeightDecay",)),
        _NEWER_ADAMW,
        {
            **refused(
                "Keras' own legacy optimizers have no AdamW; those since 2.11 have",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            # With sparse gradients contrib's and that of addons decay only the rows that are hit.
            (TF1, NEWER): STEPS._replace(why=_DECAY, dense_only=True),
            (NEWER, TF1): POWERS._replace(why=_DECAY, dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, _DECAY, dense_only=True),
            **WITHIN_KERAS,
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
            **refused("Keras' legacy optimizers have no AdamW of their own", (TF1, LEGACY)),
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
        Legacy("LAMB", {"m": "m", "v": "v"}, BETAS),
        Newer(
            "Lamb",
            {"m": "_momentums", "v": "_velocities"},
            {},
            ADAM_ENDS,
            only_keras_3=True,
        ),
        {
            **refused(
                "LAMB's weight decay is a part of its trust ratio, the one of Keras' Lamb is not, "
                "and some LAMBs correct the bias of m and v"
            ),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "LARSOptimizer",
        Tf1("LARSOptimizer", ("momentum",), ("tf.contrib.opt.LARSOptimizer",)),
        relations=refused("Keras has no LARS: its SGD has one learning rate for all variables"),
    ),
    Optimizer(
        "MomentumW",
        Tf1("MomentumW", ("momentum",), ("tf.contrib.opt.MomentumWOptimizer",)),
        Legacy("SGDW", {"momentum": "momentum"}, ("momentum", "weight_decay")),
        NEWER_SGD,
        {
            **refused(
                "Keras' own legacy optimizers have no SGDW; the SGD since 2.11 has a weight decay",
                *((TF1, LEGACY), (LEGACY, TF1)),
            ),
            (TF1, NEWER): Relation(
                SCALED, f"{TIMES_RATE}; {_DECAY}", ("learning_rate",), dense_only=True
            ),
            (LEGACY, NEWER): Relation(EXACT, _DECAY, dense_only=True),
        },
    ),
    Optimizer(
        "AdaMax",
        Tf1("AdaMax", ("m", "v"), ("tf.contrib.opt.AdaMaxOptimizer",), ("beta_1",)),
        Legacy("Adamax", {"m": "m", "v": "v"}, BETAS),
        Newer(
            "Adamax",
            {"m": "_m", "v": "_u"},
            {"m": "m", "u": "v"},
            {"momentum": "m", "norm": "v"},
        ),
        {
            # With sparse gradients contrib's and the legacy one touch only the rows that are hit.
            (TF1, LEGACY): STEPS,
            (LEGACY, TF1): _POWER,
            (TF1, NEWER): STEPS._replace(dense_only=True),
            (NEWER, TF1): _POWER._replace(dense_only=True),
            (LEGACY, NEWER): Relation(EXACT, dense_only=True),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "Nadam",
        Tf1("Nadam", ("m", "v"), ("tf.contrib.opt.NadamOptimizer",), BETAS),
        Legacy("Nadam", {"m": "m", "v": "v"}, (*BETAS, "momentum_cache")),
        Newer(
            "Nadam",
            {"m": "_momentums", "v": "_velocities"},
            {"m": "m", "v": "v"},
            ADAM_ENDS,
            own=("_u_product",),
        ),
        {
            **refused("each has a schedule of its momentum of its own"),
            **WITHIN_KERAS,
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
            {"r": "vr", "c": "vc", "v": "v"},
            {"velocity": "v"},
            empty=("vr", "vc"),
        ),
        relations={
            **refused(
                "whose Adafactor it is to be decides what its slots are called, and Keras' legacy "
                "optimizers have none",
                *((TF1, LEGACY), (NEWER, TF1)),
            ),
            (TF1, NEWER): Relation(
                EXACT,
                "by the defaults of both: a decay of steps to the power of -0.8, a learning rate "
                "times the size of the variable and never above 1 / sqrt(steps), no momentum",
                needs=("iter",),
                fills=True,
            ),
            **WITHIN_KERAS,
        },
    ),
    Optimizer(
        "RectifiedAdam",
        legacy=Legacy(
            "RectifiedAdam",
            ADAM_SLOTS,
            (
                *(*BETAS, "weight_decay", "sma_threshold"),
                *("total_steps", "warmup_proportion", "min_lr"),
            ),
        ),
    ),
    Optimizer(
        "AddSign",
        Tf1("AddSignOptimizer", ("m",), ("tf.contrib.opt.AddSignOptimizer",)),
        relations=refused("Keras has no AddSign"),
    ),
    Optimizer(
        "PowerSign",
        Tf1("PowerSignOptimizer", ("m",), ("tf.contrib.opt.PowerSignOptimizer",)),
        relations=refused("Keras has no PowerSign"),
    ),
)
