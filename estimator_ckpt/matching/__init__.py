"""What a model has, what a checkpoint has, and which belongs to which."""
