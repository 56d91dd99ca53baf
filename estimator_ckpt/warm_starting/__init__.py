"""What stands behind a WarmStart: its file, what it resolves to, how it is applied, its report."""
