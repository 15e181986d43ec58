"""The harness of Python: programs behave as under `python3 FILE`, and their output arrives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from tests.unit.guests import ENVIRONMENT, NO_INPUT, Ended, interpreter, json_values, run

from casemate import limits


@pytest.fixture
def python(tmp_path: Path) -> Any:
    def start(code: str, value: Any = NO_INPUT, **more: Any) -> Ended:
        return run("python", code, value, cwd=tmp_path, **more)

    return start


# Output -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("output = {'a': [1, 2.5, None, True, 'x']}", {"a": [1, 2.5, None, True, "x"]}),
        ("output = None", None),
        ("return 5", 5),
        ("return None", None),
        ("output = 1\nreturn 2", 2),
        ("output = 1\nreturn", 1),
        ("if 1:\n    return {'x': 1}\nprint('not reached')", {"x": 1}),
        ("for i in range(9):\n    while True:\n        if i == 3: return i\n        break", 3),
        ("try:\n    return 1\nfinally:\n    y = 2", 1),
        ("with open('/dev/null') as f:\n    return f.name", "/dev/null"),
        ("x = 1\ndef f(): return x\nif f(): return f() + 1", 2),
        ("import sys\noutput = 4\nsys.exit(3)", 4),
        ("output = 1\noutput = 2", 2),
        ("class A:\n    def f(self): return 7\noutput = A().f()", 7),
    ],
)
def test_the_output_is_the_return_or_the_variable(python: Any, code: str, output: Any) -> None:
    ended = python(code)
    assert (ended.output, ended.stdout, ended.stderr) == (output, "", "")


@pytest.mark.parametrize("code", ["pass", "", "return", "print(1)", "def main(x): return x", "output = 1\ndel output"])
def test_without_either_there_is_none(python: Any, code: str) -> None:
    assert python(code).message == {"kind": "none"}


WRAPPED_MAIN = """
import functools
def decorator(function):
    @functools.wraps(function)
    def wrapper(*args): return ['w', function(*args)]
    return wrapper
@decorator
def main(value): return value
"""


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("def main(value): return value", [1]),
        ("def main(value, more=2, *rest, key=3, **others): return more", 2),
        ("async def main(value): return value", [1]),
        ("import functools\n@functools.cache\ndef main(n): return 1\nmain(2)\ninput = 3\nmain = main", None),
        ("def main(value): return value\noutput = 'first'", "first"),
        ("def main(value): return value\nif main([]) == []: return 'returned'", "returned"),
        (WRAPPED_MAIN, ["w", [1]]),
    ],
)
def test_main_with_one_required_parameter_is_called_with_the_input(python: Any, code: str, output: Any) -> None:
    ended = python(code, [1])
    if output is None:
        assert ended.error["type"] == "TypeError"  # a list cannot be hashed: it was called, with the input
    else:
        assert ended.output == output


@pytest.mark.parametrize(
    "code",
    ["def main(): return 1", "def main(a, b): return 1", "def main(a, *, b): return 1", "main = 5", "class main: pass"],
)
def test_any_other_main_is_left_alone(python: Any, code: str) -> None:
    assert python(code, [1]).message == {"kind": "none"}


def test_the_input_shadows_the_builtin_only_if_there_is_one(python: Any) -> None:
    assert python("output = input", {"a": 1}).output == {"a": 1}
    assert python("output = input", None).output is None
    assert python("output = input()", stdin="typed\n").output == "typed"


def test_a_top_level_return_keeps_everything_else_as_it_is(python: Any) -> None:
    ended = python(
        "'doc'\nfrom __future__ import annotations\nfrom os.path import *\nx: Missing = 3\n'no doc'\n"
        "if x == 4: return 1\nfor i in range(2):\n    found = [j for j in range(i + 1)]\n    if i: break\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError as e: pass\n"
        "import collections.abc\nif x == 3:\n    y = join('a', 'b')\n"
        "    return [__doc__, __annotations__, y, found, i, 'e' in globals()]"
    )
    assert ended.output == ["doc", {"x": "Missing"}, "a/b", [0, 1], 1, False]


def test_a_return_that_fails_shows_the_line_it_stands_in(python: Any, tmp_path: Path) -> None:
    ended = python("x = 1\nif x:\n    return x / 0\n")
    assert ended.stderr == (
        f'Traceback (most recent call last):\n  File "{tmp_path}/main.py", line 3, in <module>\n'
        "    return x / 0\n           ~~^~~\nZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class A:\n    return 1", "'return' outside function"),
        ("if 1:\n    yield 2\n    return 1", "outside function"),
        ("return 1\nbreak", "'break' outside loop"),
        ("return 1\nx = (", "was never closed"),
    ],
)
def test_what_is_wrong_beside_a_return_is_still_wrong(python: Any, code: str, message: str) -> None:
    ended = python(code)
    assert ended.exit_code == 1
    assert message in ended.error["message"]
    assert ended.error["type"] == "SyntaxError"


# Ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('bye')", 1, "bye\n"),
        ("raise SystemExit(None)", 0, ""),
        ("quit(4)", 4, ""),
    ],
)
def test_exits_are_those_of_the_program(python: Any, code: str, exit_code: int, stderr: str) -> None:
    ended = python(code)
    assert (ended.exit_code, ended.stderr, ended.message) == (exit_code, stderr, {"kind": "none"})


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("import os; os._exit(4)", 4), ("import os; os.kill(os.getpid(), 9)", -9), ("import os; os.abort()", -6)],
)
def test_who_ends_at_once_sends_no_reply(python: Any, code: str, exit_code: int) -> None:
    ended = python(code)
    assert (ended.exit_code, ended.reply) == (exit_code, b"")


def test_an_uncaught_exception_is_printed_as_ever_and_reported(python: Any, tmp_path: Path) -> None:
    ended = python("def f(n):\n    return 1 / n\nf(0)\n")
    text = (
        f'Traceback (most recent call last):\n  File "{tmp_path}/main.py", line 3, in <module>\n    f(0)\n'
        f'  File "{tmp_path}/main.py", line 2, in f\n    return 1 / n\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", text)
    assert ended.error == {"type": "ZeroDivisionError", "message": "division by zero", "traceback": text}


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("class Mine(Exception): pass\nraise Mine('own')", "Mine", "own"),
        ("import json; json.loads('{')", "json.decoder.JSONDecodeError", "Expecting property name"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E", "<exception str() failed>"),
        ("raise Exception('\\ud800x\\n\"')", "Exception", '\ufffdx\n"'),
        ("def main(x): raise ValueError('in main')", "ValueError", "in main"),
        ("raise Exception('y' * 100000)", "Exception", "y" * 1000),
    ],
)
def test_an_error_is_told_by_name_and_message(python: Any, code: str, name: str, message: str) -> None:
    ended = python(code, 1)
    assert ended.message["kind"] == "exception"
    assert ended.error["type"] == name
    assert ended.error["message"].startswith(message)
    assert all(len(text) <= limits.ERROR_TEXT_MAX_CHARS for text in ended.error.values())
    assert "casemate/guest" not in ended.stderr


def test_threads_and_exit_handlers_get_their_time(python: Any) -> None:
    ended = python(
        "import atexit, threading\natexit.register(print, 'at exit')\nevent = threading.Event()\n"
        "def work():\n    event.wait()\n    print('in thread')\nthreading.Thread(target=work).start()\n"
        "threading.Timer(0.05, event.set).start()\noutput = 1"
    )
    assert (ended.stdout, ended.output) == ("in thread\nat exit\n", 1)


# The channel --------------------------------------------------------------------------------------


def test_what_looks_like_a_reply_on_the_streams_changes_nothing(python: Any) -> None:
    forged = json.dumps({"kind": "value", "output": "forged"})
    length = r"\x00\x00\x00" + f"\\x{len(forged):02x}"
    ended = python(
        f"import sys\nfor stream in (sys.stdout, sys.stderr):\n"
        f"    stream.buffer.write(b'{length}' + {forged!r}.encode())\noutput = 1"
    )
    assert ended.output == 1
    assert forged in ended.stdout
    assert forged in ended.stderr


def test_descriptors_are_free_and_are_not_inherited(python: Any) -> None:
    ended = python(
        "import os, subprocess\noutput = [open('/dev/null').fileno(), os.listdir('/proc/self/fd'),"
        " subprocess.run(['ls', '/proc/self/fd'], capture_output=True, close_fds=False).stdout.decode().split()]"
    )
    first, own, child = ended.output
    assert first == 3
    assert sorted(map(int, own)) == [0, 1, 2, 3, 62, 63]
    assert child == ["0", "1", "2", "3"]


@pytest.mark.parametrize("code", ["import os; os.closerange(3, 256)", "import os; os.closerange(0, 256)"])
def test_a_program_that_closes_the_channel_ends_as_ever(python: Any, code: str) -> None:
    ended = python(f"output = 1\n{code}\nraise SystemExit(7)")
    assert (ended.exit_code, ended.reply) == (7, b"")


def test_a_forked_child_does_not_reply(python: Any) -> None:
    ended = python("import os\npid = os.fork()\noutput = 'child' if pid == 0 else os.waitpid(pid, 0)[1]")
    assert ended.output == 0


def test_the_reply_is_made_even_when_no_descriptor_is_left(python: Any) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\nfiles = []\n"
    code += "try:\n    while True: files.append(open('/dev/null'))\nexcept OSError: pass\n"
    assert python(code + "output = {'open': len(files) > 90}").output == {"open": True}
    assert python(code + "1 / 0").error["type"] == "ZeroDivisionError"


EXHAUSTIONS: Final = ("held.append(bytearray(10**6))", "held.append([0] * 100)")


@pytest.mark.parametrize("step", EXHAUSTIONS)
def test_running_out_of_memory_is_told_with_the_line_of_the_program(python: Any, step: str) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (48 << 20, 48 << 20))"
    ended = python(f"{limit}\nheld = []\nwhile True:\n    {step}")
    assert (ended.exit_code, ended.error["type"]) == (1, "MemoryError")
    assert ended.stderr.endswith("\nMemoryError\n")
    assert 'main.py", line 4, in <module>\n' in ended.stderr
    assert "casemate" not in ended.stderr


# The world of the program -------------------------------------------------------------------------


def test_the_interpreter_is_set_up_as_ever(python: Any, tmp_path: Path) -> None:
    code = (
        "import sys\nimport builtins, os\n"
        "print(sys.argv, sys.orig_argv[-3:], sys.path, sorted(vars(builtins)), quit, copyright, sys.stdin.read())\n"
        "print(__name__, __file__, __spec__, __package__, __cached__, type(__loader__), list(globals()))\n"
        "print(sys.getrecursionlimit(), sys.excepthook is sys.__excepthook__, sys.modules['__main__'])\n"
        "def f(n):\n    try: return f(n + 1)\n    except RecursionError: return n\nprint(f(0))\n"
    )
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "main.py").write_text(code)
    native = subprocess.run(
        [interpreter("python"), "-s", "main.py", "a", "b c"],
        cwd=tmp_path / "native",
        env=ENVIRONMENT,
        input="typed",
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "native" / "main.py").unlink()
    ended = run("python", code, cwd=tmp_path / "native", args=("a", "b c"), stdin="typed")
    assert ended.stdout == native.stdout


def test_the_program_is_a_file_while_it_runs(python: Any, tmp_path: Path) -> None:
    ended = python(
        "import inspect, multiprocessing, pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n"
        "def f(): return 1\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: n = pool.apply(f)\n"
        "    output = [n, inspect.getsource(f), pickle.loads(pickle.dumps(P(2))).x, open(__file__).read()[:14]]"
    )
    assert ended.output == [1, "def f(): return 1\n", 2, "import inspect"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_is_left_alone(python: Any, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("NAME = 'theirs'\n")
    ended = python("import main, warnings\nwarnings.warn(main.NAME)\ndef f(): raise ValueError('ours')\nf()")
    assert 'line 3, in f\n    def f(): raise ValueError("ours")'.replace('"', "'") in ended.stderr
    assert (tmp_path / "main.py").read_text() == "NAME = 'theirs'\n"


def test_a_file_that_the_program_has_made_its_own_stays(python: Any, tmp_path: Path) -> None:
    python("open(__file__, 'w').write('mine')")
    assert (tmp_path / "main.py").read_text() == "mine"


def test_files_beside_the_program_can_be_imported(python: Any, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("X = 42\n")
    assert python("import beside\noutput = beside.X").output == 42


def test_settings_of_the_environment_are_read_as_ever(python: Any, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "there.py").write_text("X = 1\n")
    env = {"PYTHONPATH": str(tmp_path / "lib"), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    ended = python("import sys, there\noutput = [hash('x'), there.X, sys.path[0]]", env=env)
    assert ended.output == [python("output = hash('x')", env=env).output, 1, env["PYTHONPATH"]]


# Values -------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40)
@given(json_values())
def test_any_json_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    ended = run("python", "output = input", value, cwd=tmp_path_factory.getbasetemp())
    assert ended.output == value


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 2**64, 10**4000], ids=lambda number: f"{len(str(number))}")
def test_whole_numbers_are_exact_whatever_their_size(python: Any, number: int) -> None:
    assert python(f"output = int('{number}')").output == number
    assert python("output = input + 1", number).output == number + 1


def test_ten_mebibytes_go_both_ways(python: Any) -> None:
    text = "é" * (5 * 1024 * 1024 - 100)
    assert python("output = input", text).output == text
    assert "more than the 10485760 allowed" in python("output = input + 'x' * 300", text).error["message"]


LIBRARIES = """
import dataclasses, datetime, decimal, enum, fractions, uuid, pathlib, ipaddress, collections, array, types
class Color(enum.Enum): RED = 'red'
class Number(enum.IntEnum): ONE = 1
@dataclasses.dataclass
class Point:
    x: float
    y: object = None
class Text(str): pass
class Whole(int): pass
class Real(float): pass
Pair = collections.namedtuple('Pair', 'a b')
"""


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("float('nan')", None),
        ("[float('inf'), -float('inf'), 1.5]", [None, None, 1.5]),
        ("(1, (2,))", [1, [2]]),
        ("Pair(1, 2)", [1, 2]),
        ("{3, 1, 2}", [1, 2, 3]),
        ("frozenset('ba')", ["a", "b"]),
        ("len({1, 'a'}) and sorted(map(str, {1, 'a'}))", ["1", "a"]),
        ("{1: 'a', 2.5: 'b', True and None: 'c', False: 'd', Color.RED: 'e'}",
         {"1": "a", "2.5": "b", "null": "c", "false": "d", "red": "e"}),
        ("b'abc'", "YWJj"),
        ("[bytearray(b'a'), memoryview(b'b')]", ["YQ==", "Yg=="]),
        ("[Color.RED, Number.ONE, {'k': Color.RED}]", ["red", 1, {"k": "red"}]),
        ("[Text('t'), Whole(3), Real(1.5), Real('nan')]", ["t", 3, 1.5, None]),
        ("Point(1.0, Point(2.0))", {"x": 1.0, "y": {"x": 2.0, "y": None}}),
        ("[datetime.date(2020, 1, 2), datetime.time(3, 4)]", ["2020-01-02", "03:04:00"]),
        ("datetime.datetime(2020, 1, 2, 3, 4, 5, 600000, datetime.timezone.utc)", "2020-01-02T03:04:05.600000+00:00"),
        ("datetime.timedelta(minutes=1.5)", 90.0),
        ("[decimal.Decimal('1.10'), decimal.Decimal('NaN'), fractions.Fraction(1, 3)]", ["1.10", None, "1/3"]),
        ("[uuid.UUID(int=0), pathlib.Path('/a/b'), ipaddress.ip_address('::1')]",
         ["00000000-0000-0000-0000-000000000000", "/a/b", "::1"]),
        ("[range(3), collections.deque([1]), array.array('d', [1.5])]", [[0, 1, 2], [1], [1.5]]),
        ("[{'a': 1}.keys(), {'a': 1}.values(), {'a': 1}.items()]", [["a"], [1], [["a", 1]]]),
        ("[collections.OrderedDict(b=1), collections.Counter('aa')]", [{"b": 1}, {"a": 2}]),
        ("[collections.ChainMap({'c': 3}), collections.UserDict(e=5)]", [{"c": 3}, {"e": 5}]),
        ("types.MappingProxyType({'d': 4})", {"d": 4}),
        ("[collections.UserList([1]), collections.UserString('u')]", [[1], "u"]),
        ("'\\ud800 and \\udc00'", "\ufffd and \ufffd"),
        ("'\\x00\\x1f\\x7f\\u2028\"\\\\'", "\x00\x1f\x7f\u2028\"\\"),
    ],
)  # fmt: skip
def test_what_json_does_not_know_is_converted(python: Any, expression: str, output: Any) -> None:
    assert python(f"{LIBRARIES}\noutput = {expression}").output == output


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("output = object()", "output: a value of type object cannot be written as JSON"),
        ("class A: pass\noutput = {'a': [1, A()]}", "output.a[1]: a value of type __main__.A cannot be written"),
        ("output = [print]", "output[0]: a value of type builtin_function_or_method cannot be written as JSON"),
        ("output = (i for i in [1])", "output: a value of type generator cannot be written as JSON"),
        ("output = 1j", "output: a value of type complex cannot be written as JSON"),
        ("a = []\na.append(a)\noutput = {'a': a}", "output.a[0]: circular reference"),
        ("a = {}\na['b c'] = {'d': a}\noutput = a", "output['b c'].d: circular reference"),
        ("output = {(1, 2): 3}", "output: a key of type tuple cannot be a name"),
        ("output = {'x': {1: 'a', '1': 'b'}}", "output.x: two keys become '1'"),
        ("output = 10 ** 5000", "output: an integer of more than 4300 digits"),
        ("a = []\nfor i in range(300): a = [a]\noutput = a", "nested more than 200 deep"),
        ("class D(dict):\n    def items(self): raise ValueError('no')\noutput = D()",
         "output: converting it failed with ValueError: no"),
        ("class A:\n    def tolist(self): return [A()]\noutput = A()", "nested more than 200 deep"),
        ("class A:\n    def tolist(self): raise SystemExit\noutput = A()", "converting it failed with SystemExit"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_named_with_its_place(python: Any, code: str, message: str) -> None:
    ended = python(code)
    assert (ended.exit_code, ended.message["kind"], ended.error["type"]) == (0, "invalid", "InvalidOutput")
    assert message in ended.error["message"]


def test_values_in_many_places_are_not_circular(python: Any) -> None:
    assert python("a = [1]\noutput = {'x': a, 'y': [a, a]}").output == {"x": [1], "y": [[1], [1]]}


ARRAYS = """
class Scalar:
    dtype = 'int64'
    def __init__(self, value): self.value = value
    def tolist(self): return self.value
class Times(Scalar):
    class dtype: kind = 'M'
    def astype(self, name): assert name == 'M8[us]'; return Scalar(['2020'])
Times.__module__ = 'numpy'
class Frame:
    columns = ['a']
    def to_dict(self, orient='dict'): assert orient == 'list'; return {'a': [Scalar(1), float('nan')]}
class OtherFrame:
    columns = ['a']
    def to_dict(self, *, as_series): assert as_series is False; return {'a': [1]}
class NAType: pass
"""


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("[Scalar(1), {'k': Scalar([1.5, float('nan')])}]", [1, {"k": [1.5, None]}]),
        ("{Scalar(7): 1}", {"7": 1}),
        ("Times(0)", ["2020"]),
        ("Frame()", {"a": [1, None]}),
        ("OtherFrame()", {"a": [1]}),
        ("[NAType()]", [None]),
    ],
)
def test_arrays_and_frames_are_known_by_what_they_can_do(python: Any, expression: str, output: Any) -> None:
    """What numpy, pandas and polars offer; the libraries themselves are not part of this project."""
    assert python(f"{ARRAYS}\noutput = {expression}").output == output
