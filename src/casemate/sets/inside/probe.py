"""Imports what is to be preloaded: the first argument is where the packages lie, the others are names of modules."""
# ruff: noqa: I002

import importlib
import sys

sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
