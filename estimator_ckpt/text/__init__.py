"""How results are shown: names, tables, progress."""
