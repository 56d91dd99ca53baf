"""What saver.py is made of: what a graph saves, the ops for it, and what it restores from where."""
