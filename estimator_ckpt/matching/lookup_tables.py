"""Lookup tables of an eager program: two tensors each, keys and values, that start together."""

from __future__ import annotations

from typing import Any

# The name of a table's value in an object graph, and what its two keys have behind that
# (tensorflow/python/ops/lookup_ops.py). In an eager program a table itself has no name.
ATTRIBUTE = "table"
SUFFIXES = ("-keys", "-values")


def is_table(one: Any) -> bool:
    """Whether it is a lookup table that a tf.train.Checkpoint saves: one that can change."""
    import tensorflow as tf

    tables = (tf.lookup.experimental.MutableHashTable, tf.lookup.experimental.DenseHashTable)
    return isinstance(one, tables)


class TablePart:
    """The keys or the values of a table, to be assigned as a variable is.

    Attributes:
      dtype: of the part.
    """

    def __init__(self, table: Any, suffix: str, values: dict[str, Any]) -> None:
        """`values` is one for both parts of a table: it keeps what the first was given."""
        self.dtype = table.key_dtype if suffix == SUFFIXES[0] else table.value_dtype
        self._table = table
        self._suffix = suffix
        self._values = values

    def assign(self, value: Any) -> None:
        """Replaces all that the table has, once both parts are given."""
        import tensorflow as tf

        self._values[self._suffix] = tf.constant(value, self.dtype)
        if self._values.keys() == set(SUFFIXES):
            keys, values = map(self._values.__getitem__, SUFFIXES)
            handle = self._table.resource_handle
            tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=keys, values=values)
            self._values.clear()
