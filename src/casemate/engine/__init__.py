"""One execution from what is asked to its Result."""
