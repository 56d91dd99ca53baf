"""Jobs that read by tf.data and record what they have read."""

import tensorflow as tf

from estimator_ckpt import make_scaffold

v1 = tf.compat.v1


def numbers(n=40, batch=4, *, buffer=8, parallel=2, ahead=2, repeat=2):
    """Shuffled numbers, through most of what a pipeline consists of."""
    dataset = tf.data.Dataset.range(n).shuffle(buffer)
    dataset = dataset.interleave(
        lambda x: tf.data.Dataset.from_tensors(x).repeat(2),
        cycle_length=2,
        num_parallel_calls=parallel,
    )
    dataset = dataset.map(lambda x: tf.cast(x, tf.float32) / 8.0, num_parallel_calls=parallel)
    return dataset.cache().repeat(repeat).batch(batch).prefetch(ahead)


def iterator_of(dataset, kind):
    """A "one_shot" iterator; one that the "local_init" initializes; or one that nothing does."""
    if kind == "one_shot":
        return v1.data.make_one_shot_iterator(dataset)
    iterator = v1.data.make_initializable_iterator(dataset)
    if kind == "local_init":
        v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator


def minimize(x):
    """A loss of the batches, and what trains on it."""
    w = v1.get_variable("w", initializer=1.0)
    loss = tf.reduce_mean((w * x - 1.0) ** 2)
    step = v1.train.get_or_create_global_step()
    return loss, v1.train.AdamOptimizer(0.1).minimize(loss, step)


def run(
    model_dir,
    steps,
    dataset=numbers,
    *,
    kind="local_init",
    others=(),
    hooks=(),
    every=100,
    checkpoint_format="both",
    copied=lambda scaffold: scaffold,
    **options,
):
    """Trains in a MonitoredTrainingSession, as far as the data go; returns each step's batch and
    loss. `others` are further pipelines."""
    recorded = []
    with tf.Graph().as_default():
        v1.set_random_seed(3)
        batches = [iterator_of(one(), kind).get_next() for one in (dataset, *others)]
        loss, train = minimize(batches[0])
        scaffold = make_scaffold(checkpoint_format, **{"save_input": True, **options})
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir),
            scaffold=copied(scaffold),
            hooks=[one(v1.get_default_graph()) for one in hooks],
            save_checkpoint_steps=every,
            log_step_count_steps=None,
        ) as session:
            while len(recorded) < steps and not session.should_stop():
                batch, value, _ = session.run([batches, loss, train])
                recorded.append(([one.tolist() for one in batch], float(value)))
    return recorded
