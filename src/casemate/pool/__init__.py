"""Things made ahead of their use: how many, by whom, and until when."""
