"""What flags.py and train.py are made of: flags, the functions that they name, hooks."""
