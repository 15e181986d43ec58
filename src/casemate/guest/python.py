"""Where the interpreter starts: `python3 -S <this file>`. The rest is imported, and so read from bytecode."""
# ruff: noqa: I002  (importing __future__ would be a tenth of what the harness costs)

import sys

HERE = __file__.rpartition("/")[0]

sys.path.insert(0, HERE)
program = __import__("python_program")
del sys.path[0], sys.modules["python_program"]
program.main(HERE)
