"""Programs of one model in TF1 and in every Keras there is, each with the same optimizer.

On TensorFlow 2.15 Keras' optimizers since 2.11 are those of Keras 2, on later ones those of Keras
3, beside which tf_keras has the others.
"""

from __future__ import annotations

import numpy as np
from conversion_files import v1
from keras_session import KerasSession
from tensorflow_party import tf
from tf1_session import Tf1Session

IS_KERAS_3 = getattr(tf.keras, "__version__", "2").startswith("3")  # 2.12 has it, 2.15 not
STEPS = 5
INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
LABELS = np.linspace(2, -1, 12, dtype=np.float32).reshape(4, 3)
# Of one shape, so that slots in another order would fit as well.
SHAPES = {"net/a/kernel": (3, 3), "net/b/kernel": (3, 3), "net/b/bias": (3,)}

if IS_KERAS_3:
    import tf_keras

    FAMILIES = {
        "legacy": tf_keras.optimizers.legacy,
        "tf_keras": tf_keras.optimizers,
        "keras3": tf.keras.optimizers,
    }
else:
    FAMILIES = {"legacy": tf.keras.optimizers.legacy, "keras2": tf.keras.optimizers}


class AdaMax(v1.train.Optimizer):
    """As contrib has it: Adam's first power and the kernel of Keras' legacy one."""

    def __init__(self):
        super().__init__(False, "AdaMax")

    def _create_slots(self, var_list):
        self._create_non_slot_variable(np.float32(0.8), "beta1_power", var_list[0])
        for variable in var_list:
            self._zeros_slot(variable, "m", self._name)
            self._zeros_slot(variable, "v", self._name)

    @property
    def _power(self):
        return self._get_non_slot_variable("beta1_power", tf.compat.v1.get_default_graph())

    def _resource_apply_dense(self, grad, var):
        m, v = (self.get_slot(var, name).handle for name in "mv")
        numbers = {"beta1_power": self._power, "lr": 0.05, "beta1": 0.8, "beta2": 0.95}
        return tf.raw_ops.ResourceApplyAdaMax(
            var=var.handle, m=m, v=v, epsilon=1e-3, grad=grad, **numbers
        )

    def _finish(self, update_ops, name_scope):
        with tf.control_dependencies(update_ops):
            return tf.group(*update_ops, self._power.assign(self._power * 0.8), name=name_scope)


# The same optimizer in TF1 and in Keras, with numbers that are no defaults.
TF1 = {
    "Adam": lambda: v1.train.AdamOptimizer(0.05, 0.8, 0.95, epsilon=1e-3),
    "AdaMax": AdaMax,
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(0.5, rho=0.9, epsilon=1e-3),
    "Ftrl": lambda: v1.train.FtrlOptimizer(0.2, l1_regularization_strength=0.01),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9),
    "Nesterov": lambda: v1.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.02, decay=0.8, epsilon=1e-3),
    "RMSProp with momentum": lambda: v1.train.RMSPropOptimizer(
        0.02, decay=0.8, momentum=0.5, epsilon=1e-3
    ),
    "Centered": lambda: v1.train.RMSPropOptimizer(
        0.02, 0.8, momentum=0.5, epsilon=1e-3, centered=True
    ),
}
KERAS = {
    "Adam": lambda keras: keras.Adam(0.05, 0.8, 0.95, epsilon=1e-3),
    "AdaMax": lambda keras: keras.Adamax(0.05, 0.8, 0.95, epsilon=1e-3),
    "Adagrad": lambda keras: keras.Adagrad(0.1, epsilon=1e-30),
    "Adadelta": lambda keras: keras.Adadelta(0.5, rho=0.9, epsilon=1e-3),
    "Ftrl": lambda keras: keras.Ftrl(0.2, l1_regularization_strength=0.01),
    "Momentum": lambda keras: keras.SGD(0.05, 0.9),
    "Nesterov": lambda keras: keras.SGD(0.05, 0.9, nesterov=True),
    "RMSProp": lambda keras: keras.RMSprop(0.02, rho=0.8, epsilon=1e-3),
    "RMSProp with momentum": lambda keras: keras.RMSprop(0.02, rho=0.8, momentum=0.5, epsilon=1e-3),
    "Centered": lambda keras: keras.RMSprop(
        0.02, rho=0.8, momentum=0.5, epsilon=1e-3, centered=True
    ),
}
BETAS = {"beta_1": 0.8, "beta_2": 0.95}


def loss_of(a, b, bias):
    return tf.reduce_mean(tf.square(tf.matmul(tf.matmul(INPUTS, a), b) + bias - LABELS))


def initial(name):
    count = int(np.prod(SHAPES[name]))
    return np.cos(np.arange(count, dtype=np.float32) + len(name)).reshape(SHAPES[name])


class Tf1Job(Tf1Session):
    """A TF1 graph with its session."""

    STEPS = STEPS

    def __init__(self, kind, slices=None, session=True):
        with tf.Graph().as_default() as self.graph:
            partitioner = v1.fixed_size_partitioner(slices) if slices else None
            self.variables = {
                name: v1.get_variable(
                    name,
                    shape,
                    initializer=lambda shape, name=name, partition_info=None, **_: tf.constant(
                        initial(name)[
                            tuple(
                                slice(start, start + size)
                                for start, size in zip(
                                    partition_info.var_offset
                                    if partition_info
                                    else [0] * len(shape),
                                    shape,
                                )
                            )
                        ]
                    ),
                    partitioner=partitioner if name == "net/a/kernel" else None,
                )
                for name, shape in SHAPES.items()
            }
            self.loss = loss_of(*map(tf.convert_to_tensor, self.variables.values()))
            step = v1.train.get_or_create_global_step()
            self.train_op = self.minimize(kind, step)
            if session:
                self.start()

    def minimize(self, kind, step):
        return TF1[kind]().minimize(self.loss, step)


class KerasJobInAGraph(Tf1Job):
    """The same model in a graph, with an optimizer of Keras 2 since 2.11.

    Without a tf.function such an optimizer trains nothing in a graph.
    """

    def minimize(self, kind, step):
        optimizer, variables = kind(), list(self.variables.values())
        optimizer.build(variables)

        @tf.function
        def train():
            with tf.GradientTape() as tape:
                loss = loss_of(*variables)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return step.assign_add(1)

        return train()


class EagerTf1Job(KerasSession):
    """The same model as objects, with an optimizer of tf.compat.v1."""

    STEPS = STEPS
    loss = staticmethod(loss_of)

    def __init__(self, optimizer):
        self.variables = {name: tf.Variable(initial(name), name=name) for name in SHAPES}
        self.optimizer, self.ordered = optimizer, list(self.variables.values())
        optimizer.apply_gradients([(tf.zeros_like(v), v) for v in self.ordered])
        self.objects = tf.train.Checkpoint(model=self.variables, optimizer=optimizer)


class KerasJob(KerasSession):
    """The same model as objects; `order`: in which the optimizer is built."""

    STEPS = STEPS
    loss = staticmethod(loss_of)

    def __init__(self, optimizer, order=tuple(SHAPES)):
        self.variables = {name: tf.Variable(initial(name), name=name) for name in SHAPES}
        self.optimizer = optimizer
        self.ordered = [self.variables[name] for name in order]
        build = getattr(optimizer, "build", None) or optimizer._create_all_weights
        build(self.ordered)
        self.objects = tf.train.Checkpoint(model=self.variables, optimizer=optimizer)
