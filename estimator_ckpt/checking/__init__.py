"""What check, compare and audits find out."""
