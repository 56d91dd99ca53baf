"""A classifier starts from a trained one, with a new head and a vocabulary that has grown.

1. A model with 4 words and 2 classes is trained and saved, as any job saves.
2. A new job starts from it: words that both have keep their rows of the embedding, wherever they
   stand now; new words begin with zeros, and the head of 3 classes with its initial values.
3. Each variable must have begun with what the rules say.

    python -m estimator_ckpt.examples.new_head

The exit code says whether it did. The rules are in `rules`; for a job that is driven by flags they
stand in YAML files, as those of configs/new_head.flags and configs/vocabulary.flags.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

from estimator_ckpt import WarmStart, checkpoint_scaffold

tf1: Any = tf.compat.v1

_OLD_WORDS = ["the", "cat", "sat", "down"]
_NEW_WORDS = ["cat", "dog", "the", "down", "sat"]
_INITIAL = 0.5


def rules(directory: str) -> WarmStart:
    return WarmStart(
        os.path.join(directory, "old"),
        exclude=["head/.*"],  # keeps its initial values
        var_name_to_vocab_info={
            "embedding/table": tf1.train.VocabInfo(
                new_vocab=os.path.join(directory, "new_words.txt"),
                new_vocab_size=len(_NEW_WORDS),
                num_oov_buckets=0,
                old_vocab=os.path.join(directory, "old_words.txt"),
                # New words begin with zeros, unless there is a backup_initializer.
            )
        },
    )


def train(model_dir: str, words: int, classes: int, steps: int, warm_start: Any = None) -> Any:
    """Trains, and returns the values of the variables before the first step, by name."""
    with tf.Graph().as_default():
        make = tf1.constant_initializer(_INITIAL)
        table = tf1.get_variable("embedding/table", [words, 2], initializer=make)
        kernel = tf1.get_variable("dense/kernel", [2, 4], initializer=make)
        head = tf1.get_variable("head/kernel", [4, classes], initializer=make)
        labels = np.arange(words * classes, dtype=np.float32).reshape(words, classes)
        loss = tf.reduce_mean((table @ kernel @ head - labels) ** 2)
        step = tf1.train.get_or_create_global_step()
        train_op = tf1.train.AdamOptimizer(0.1).minimize(loss, step)
        variables = {v.op.name: v for v in tf1.trainable_variables()}
        with tf1.train.MonitoredTrainingSession(
            checkpoint_dir=model_dir,
            scaffold=checkpoint_scaffold(warm_start=warm_start),
            log_step_count_steps=None,
        ) as session:
            first = session.run(variables)
            for _ in range(steps):
                session.run(train_op)
    return first


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as directory:
        for name, words in ("old_words.txt", _OLD_WORDS), ("new_words.txt", _NEW_WORDS):
            with open(os.path.join(directory, name), "w") as file:
                file.write("\n".join(words) + "\n")
        old, new = (os.path.join(directory, name) for name in ("old", "new"))
        train(old, len(_OLD_WORDS), classes=2, steps=10)
        trained = train(old, len(_OLD_WORDS), classes=2, steps=0)  # resumes, and looks
        started = train(new, len(_NEW_WORDS), classes=3, steps=1, warm_start=rules(directory))

    rows = dict(zip(_OLD_WORDS, trained["embedding/table"]))
    expected = {
        "embedding/table": np.array([rows.get(word, [0, 0]) for word in _NEW_WORDS]),
        "dense/kernel": trained["dense/kernel"],
        "head/kernel": np.full([4, 3], _INITIAL),
    }
    for name, value in expected.items():
        if not np.array_equal(started[name], value):
            raise SystemExit(f"{name} began with\n{started[name]}\nexpected\n{value}")
    if np.any(trained["dense/kernel"] == _INITIAL):
        raise SystemExit("The old model was not trained.")
    for word, row in zip(_NEW_WORDS, started["embedding/table"]):
        print(f"{word:<6}{'its old row' if word in rows else 'new':<14}{row}")
    print("dense/kernel goes on; head/kernel, of 3 classes now, begins anew")


if __name__ == "__main__":
    main()
