"""Object graphs: what objects a checkpoint has and what each of them holds."""
