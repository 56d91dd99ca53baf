"""A job on two virtual CPU devices: python replicas_job.py SOURCE MODEL_DIR SETTINGS.

It is warm-started from SOURCE, by the fields of a WarmStart in JSON, and prints as JSON what the
replicas of each variable started from.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf
from estimator_jobs import estimator, input_fn

from estimator_ckpt import WarmStart

v1 = tf.compat.v1


class Replicas(v1.train.SessionRunHook):
    def after_create_session(self, session, coord):
        self.values = {
            variable.op.name: [value.tolist() for value in session.run(list(variable.values))]
            for variable in v1.global_variables()
        }


def main(source, model_dir, settings):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # The default way to reduce hangs on a machine of two cores, whichever the saver.
    strategy = tf.distribute.MirroredStrategy(
        ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    warm_start = WarmStart(source, **json.loads(settings))
    job = estimator(
        model_dir, "checkpoint", config={"train_distribute": strategy}, warm_start=warm_start
    )
    replicas = Replicas()
    job.train(input_fn, steps=1, hooks=[replicas])
    print(json.dumps(replicas.values))


if __name__ == "__main__":
    main(*sys.argv[1:])
