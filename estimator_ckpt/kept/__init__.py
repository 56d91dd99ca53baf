"""Checkpoints that stay whatever the trainer deletes: how they are linked, and let go."""
