"""What TensorFlow's errors say."""

from __future__ import annotations


def reason_of(error: Exception) -> str:
    """The line of an error's message that tells what is wrong.

    Of an op's error it stands between where the op was made, and where it is in the graph:

        Graph execution error:

        Detected at node 'save/SaveV2' defined at (most recent call last):
            File "train.py", line 11, in <module>
        Node: 'save/SaveV2'
        run/model.ckpt-3.data-00000-of-00001; No space left on device
             [[{{node save/SaveV2}}]]
    """
    message: str = getattr(error, "message", None) or str(error)
    before, is_of_op, _ = message.partition("\n\t [[")
    return before.rstrip().rpartition("\n")[2] if is_of_op else message.partition("\n")[0]
