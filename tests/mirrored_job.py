"""Jobs on two virtual CPU devices: python mirrored_job.py DIRECTORY.

Prints as JSON what each has in the end: the replicas of each variable, metrics, keys on the disk.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf
from estimator_jobs import estimator, input_fn

from estimator_ckpt import WarmStart, open_checkpoint

v1 = tf.compat.v1

COUNTER = {
    "trainable": False,
    "synchronization": tf.VariableSynchronization.ON_READ,
    "aggregation": tf.VariableAggregation.SUM,
}


def strategy():
    # The default way to reduce hangs on a machine of two cores, whichever the saver.
    return tf.distribute.MirroredStrategy(
        ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


class Replicas(v1.train.SessionRunHook):
    """What the replicas of each variable start from."""

    def after_create_session(self, session, coord):
        self.values = {
            variable.op.name: [value.tolist() for value in session.run(list(variable.values))]
            for variable in v1.global_variables()
        }


def model(build):
    """A model_fn that counts steps, and whose metric is the sum of all that `build` returns."""

    def model_fn(features, labels, mode):
        variables, pieces = build()
        step = v1.train.get_or_create_global_step()
        total = tf.add_n([tf.reduce_sum(variable.read_value()) for variable in variables])
        train_op = tf.group(step.assign_add(1), *pieces.pop("ops", []))
        return tf.estimator.EstimatorSpec(
            mode,
            loss=total,
            train_op=train_op,
            eval_metric_ops={"total": v1.metrics.mean(total)},
            **pieces,
        )

    return model_fn


def just_w():
    return [v1.get_variable("w", initializer=7.0)], {}


def a_copy_of_w():
    w = v1.get_variable("w", initializer=1.0)
    with tf.control_dependencies([w.initializer]):
        b = v1.get_variable("b", initializer=w.read_value() + 1)
    return [w, b], {}


def an_average_of_w():
    w = v1.get_variable("w", initializer=1.0)
    average = tf.train.ExponentialMovingAverage(0.5, name="b")
    average.apply([w])
    return [w], {}


def counting(w, seen):
    return {}


def counting_objects(w, seen):
    saver = tf.train.Checkpoint(seen=seen, w=w, step=v1.train.get_global_step())
    return {"scaffold": v1.train.Scaffold(saver=saver)}


def with_counter(pieces_of):
    """A job that counts in each replica; the sum is what is saved."""

    def build():
        w = v1.get_variable("w", initializer=7.0)
        seen = v1.get_variable("seen", initializer=0.0, **COUNTER)
        return [w], {"ops": [seen.assign_add(1.0)], **pieces_of(w, seen)}

    return build


def train(directory, build, checkpoint_format="checkpoint", times=1, **options):
    """Trains so many times for a step; returns what the last one started from."""
    config = {"train_distribute": strategy()}
    for _ in range(times):
        job = estimator(directory, checkpoint_format, model(build), config, **options)
        replicas = Replicas()
        job.train(input_fn, steps=1, hooks=[replicas])
    return replicas.values


def with_adam():
    w = v1.get_variable("w", initializer=[7.0, 7.0])
    step = v1.train.get_or_create_global_step()
    adam = v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(w.read_value() * 2), step)
    return [w], {"ops": [adam]}


def keras_adam():
    """A variable and its optimizer, with all that hold state."""
    w, optimizer = tf.Variable([7.0, 7.0], name="w"), tf.keras.optimizers.Adam(0.1)
    optimizer.build([w])
    return w, optimizer, tf.train.Checkpoint(model={"w": w}, optimizer=optimizer)


def to_and_from_keras(directory):
    """What the replicas start from: of a job that goes on from Keras, of Keras from that job."""
    w, optimizer, objects = keras_adam()
    optimizer.apply_gradients([(tf.constant([2.0, 4.0]), w)])
    prefix = objects.write(f"{directory}/keras")
    settings = WarmStart(prefix, vars_to_warm_start=[".*"], from_optimizer="Adam")
    job = train(f"{directory}/with_adam", with_adam, warm_start=settings)
    with strategy().scope():
        w, optimizer, objects = keras_adam()
    WarmStart(prefix, from_optimizer="Adam").apply(objects)
    own = {variable.name[:-2]: variable for variable in (w, *optimizer.variables)}
    return {
        "job": job,
        "objects": {
            name: [replica.numpy().tolist() for replica in variable.values]
            for name, variable in own.items()
        },
    }


def on_disk(directory):
    with open_checkpoint(directory) as checkpoint:
        return {name: float(checkpoint.get_tensor(name)) for name in checkpoint.variables}


def main(directory):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    found = {}
    for name, build in (("copy", a_copy_of_w), ("average", an_average_of_w)):
        resumed, old, started = (f"{directory}/{name}-{part}" for part in ("a", "b", "c"))
        train(resumed, just_w)
        found[f"{name}, resumed"] = train(resumed, build, on_missing={".*b": "init"})
        found[f"{name}, resumed again"] = train(resumed, build)
        train(old, just_w)
        warm_start = WarmStart(old, vars_to_warm_start="w$")
        found[f"{name}, warm start"] = train(started, build, warm_start=warm_start)
        found[f"{name}, on disk"] = on_disk(started)

    found["optimizers"] = to_and_from_keras(directory)
    config = {"eval_distribute": strategy()}
    job = estimator(old, "checkpoint", model(a_copy_of_w), config, on_missing="warn")
    found["evaluated"] = float(job.evaluate(input_fn, steps=1)["total"])

    for checkpoint_format in (None, "checkpoint", "both"):
        for pieces_of in (counting, counting_objects):
            name = f"{pieces_of.__name__}, {checkpoint_format}"
            place = f"{directory}/{name}"
            found[name] = {
                "replicas": train(place, with_counter(pieces_of), checkpoint_format, times=2)[
                    "seen"
                ],
                "on disk": [
                    float(tf.train.load_variable(place, key))
                    for key, _ in tf.train.list_variables(place)
                    if "seen" in key
                ],
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
