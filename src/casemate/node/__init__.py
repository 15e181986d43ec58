"""The node daemon: knows runs, not customers."""
