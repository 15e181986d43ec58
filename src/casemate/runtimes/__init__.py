"""Runtimes: languages as declarations. The core knows none of them by name."""
