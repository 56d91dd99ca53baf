"""Jobs that run as they are, and are written to be copied from."""
