"""Where an interpreter starts that stays: `python3 -S <this file>`. The rest is imported, and so read from bytecode."""
# ruff: noqa: I002  (as in the file that starts a single program)

import sys

HERE = __file__.rpartition("/")[0]

sys.path.insert(0, HERE)
live = __import__("python_live")
del sys.path[0], sys.modules["python_live"]
live.main(HERE)
