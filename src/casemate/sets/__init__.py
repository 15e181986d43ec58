"""Package sets: made inside sandboxes, kept by digest, and runtimes of their own from then on."""
