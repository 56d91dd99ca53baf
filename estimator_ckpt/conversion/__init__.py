"""What convert.py is made of: from the tensors of a checkpoint to a plan, and to its files."""
