"""The harness of R: programs behave as under `Rscript FILE`, and their output arrives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.guests import ENVIRONMENT, NO_INPUT, Ended, as_doubles, json_values, run

from casemate import limits

pytestmark = pytest.mark.slow  # every program starts an R


@pytest.fixture
def r(tmp_path: Path) -> Any:
    def start(code: str, value: Any = NO_INPUT, **more: Any) -> Ended:
        return run("r", code, value, cwd=tmp_path, **more)

    return start


# Output -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("output <- list(a = c(1, 2.5), b = 'x')", {"a": [1, 2.5], "b": "x"}),
        ("output <- NULL", None),
        ("return(5)", 5),
        ("return()", None),
        ("output <- 1\nreturn(2)", 2),
        ("x <- 1; if (x > 0) { return(list(a = x)) } ; stop('not reached')", {"a": 1}),
        ("\tz <- 'é'; x <- 'ü'\n\tif (x == 'ü') {\n return(x)\n} else 5; stop()", "ü"),
        ("for (i in 1:9) { while (TRUE) { if (i == 3) return(i); break } }", 3),
        ("tryCatch(return(1), finally = x <- 2)\nstop('not reached')", 1),
        ("f <- function(x) { return(x + 1) }\nif (f(1) == 2) return(f(2))\n", 3),
        ("output <- local({ return(7); 8 })", 7),
        ("output <- 4\nquit(status = 3)", 4),
        (".Last <- function() output <<- 9", 9),
        ("main <- function(x) 1\nx <- return(6)", 6),
        ("é <- 'ü'; if (TRUE) return(é); stop()", "ü"),
    ],
)
def test_the_output_is_the_return_or_the_variable(r: Any, code: str, output: Any) -> None:
    ended = r(code)
    assert (ended.output, ended.stdout, ended.stderr) == (output, "", "")


def test_without_either_there_is_none(r: Any) -> None:
    assert r("main <- function(x) x\ninvisible(1)\nf <- function() return(2)").message == {"kind": "none"}


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("main <- function(value) value", [1]),
        ("main <- function(value, more = 2, ...) more", 2),
        ("main <- function(value) value\noutput <- 'first'", "first"),
        ("main <- function(value) value\nif (length(input)) return('returned')", "returned"),
        ("rm(list = ls())\nmain <- function(value) value", [1]),
        ("main <- sum", None),
        ("main <- function() 1", None),
        ("main <- function(a, b) 1", None),
        ("main <- 5", None),
    ],
)
def test_main_with_one_required_parameter_is_called_with_the_input(r: Any, code: str, output: Any) -> None:
    message = r(code, [1]).message
    assert message == ({"kind": "none"} if output is None else {"kind": "value", "output": output})


# As under Rscript ---------------------------------------------------------------------------------


PROGRAMS = {
    "values are printed if they are visible": "1 + 1\ninvisible(2)\n(invisible(3))\nx <- 4\nx\nNULL\nif (FALSE) 1",
    "an error in a function": "f <- function(x) g(x)\ng <- function(x) stop('deep ', x)\nf(1)\ncat('no')",
    "an error at the top": "stop('x')",
    "a long message": "f <- function(argument) stop('so long that it goes on a line of its own, it does')\nf(1)",
    "warnings in their time": "warning('a')\nf <- function() warning('in f')\nf()\nfor (i in 1:60) warning(i)",
    "warnings as errors": "options(warn = 2)\nas.integer('q')",
    "a mistake in the text": "cat('a\\n')\nx <-\ny y\ncat('b')",
    "an end too early": "cat('a\\n')\nf(1,",
    "handlers": "options(error = quote({cat('handled\\n'); q('no', status = 5)}))\nstop('x')",
    "going on after an error": "options(error = expression(NULL))\nstop('x')\ncat('on\\n')",
    "caught errors": "try(stop('loud'))\ntryCatch(stop('e'), error = function(e) print(e), finally = cat('fin\\n'))",
    "own conditions": "stop(structure(class = c('mine', 'error', 'condition'), list(message = 'm', call = NULL)))",
    "an end in between": ".Last <- function() cat('last\\n')\nquit(status = 7)",
    "stdin": "print(readLines(file('stdin')))",
    "its own lines": "x <- readline('? '); x; readLines(stdin(), 1)\nthis\nreadLines(stdin())\nand\nthat\n",
    "its surroundings": "print(search()); print(ls(all.names = TRUE)); print(interactive()); print(sys.calls());"
    " print(compiler::enableJIT(-1)); print(Sys.getenv('R_PROFILE')); print(commandArgs(TRUE)); print(list.files())",
    "random numbers and models": "set.seed(1); runif(2); coef(lm(mpg ~ wt, mtcars))",
    "forked work": "unlist(parallel::mclapply(1:3, function(i) i^2))",
    "other programs": "system('ls /proc/self/fd | wc -l'); system('exit 3')",
    "a last line without an end": "cat('é\\n')",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs_run_as_ever(tmp_path: Path, code: str) -> None:
    (tmp_path / "main.R").write_text(code)
    native = subprocess.run(
        ["Rscript", "--vanilla", "main.R", "a", "b c"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=False,
    )
    (tmp_path / "main.R").unlink()
    ended = run("r", code, cwd=tmp_path, args=("a", "b c"), stdin="one\ntwo\n")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (native.returncode, native.stdout, native.stderr)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("f <- function() stop('boom')\nf()", "simpleError", "boom"),
        ("log(-1:1, 'x')", "simpleError", "non-numeric argument to mathematical function"),
        ("library(surely.not.there)", "packageNotFoundError", "there is no package called"),
        ("x <- ", "simpleError", ""),
        ("main <- function(x) stop('in main')", "simpleError", "in main"),
        ("if (TRUE) return(stop('returned'))", "simpleError", "returned"),
        ("stop(strrep('y', 100000))", "simpleError", "y" * 1000),
        ("stop('quote \" and \\n')", "simpleError", 'quote " and \n'),
    ],
)
def test_an_error_is_told_by_class_and_message(r: Any, code: str, name: str, message: str) -> None:
    ended = r(code, 1)
    assert (ended.exit_code, ended.message["kind"]) == (1, "exception")
    assert ended.error["type"] == name
    assert ended.error["message"].startswith(message)
    assert all(len(text) <= limits.ERROR_TEXT_MAX_CHARS for text in ended.error.values())


def test_an_error_is_told_with_its_calls(r: Any) -> None:
    ended = r("f <- function(x) g(x)\ng <- function(x) stop('deep')\nf(1)")
    assert ended.error["traceback"] == 'Error in g(x) : deep\n3: stop("deep")\n2: g(x)\n1: f(1)'


def test_an_error_that_is_caught_is_none(r: Any) -> None:
    assert r("try(stop('x'), silent = TRUE)\noutput <- tryCatch(stop('y'), error = conditionMessage)").output == "y"


# The channel --------------------------------------------------------------------------------------


def test_what_looks_like_a_reply_on_stdout_changes_nothing(r: Any) -> None:
    ended = r(f"cat({json.dumps(json.dumps({'kind': 'value', 'output': 1}))})\noutput <- 2")
    assert (ended.stdout, ended.output) == ('{"kind": "value", "output": 1}', 2)


def test_the_channel_is_not_inherited(r: Any) -> None:
    assert set(r("output <- system('ls /proc/self/fd', intern = TRUE)").output) & {"4", "6"} == set()


@pytest.mark.parametrize(("code", "reply"), [("closeAllConnections()", False), ("gc()", True)])
def test_a_program_that_closes_the_channel_ends_as_ever(r: Any, code: str, reply: bool) -> None:
    ended = r(f"output <- 1\ninvisible({code})\nquit(status = 7)")
    assert (ended.exit_code, ended.stderr, bool(ended.reply)) == (7, "", reply)


def test_a_forked_child_does_not_reply(r: Any) -> None:
    assert (
        r("output <- unlist(parallel::mclapply(1:2, function(i) { quit('no') }))\noutput <- 'parent'").output
        == "parent"
    )


def test_the_program_is_a_file_while_it_runs(r: Any, tmp_path: Path) -> None:
    code = "file <- sub('--file=', '', grep('--file=', commandArgs(), value = TRUE))\noutput <- readLines(file)[1]\n"
    assert r(code).output == code.splitlines()[0]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "main.R").write_text("theirs\n")
    assert r(code).output == "theirs"


# Values -------------------------------------------------------------------------------------------

NO_NUL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
"""R has no text with a NUL in it, and no entry with an empty name."""


@settings(max_examples=8)
@given(st.lists(json_values(texts=NO_NUL, keys=NO_NUL.filter(bool)), max_size=30))
def test_any_json_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    ended = run("r", "output <- input", values, cwd=tmp_path_factory.getbasetemp())
    assert as_doubles(ended.output) == as_doubles(values)


def test_numbers_are_read_and_written_to_the_last_digit(r: Any) -> None:
    numbers = [(step * 0.7368062997280773) % 1 * 10.0 ** (step % 40 - 20) for step in range(1, 20_000)]
    assert r("output <- input", numbers).output == numbers


def test_escapes_of_every_kind_are_read(r: Any) -> None:
    texts = ["\\", "\\\\n", "\\u0041", '"', "/", "\b\f\n\r\t", "\x01\x1f\x7f", "\u2028é\ufffe", "\U0001f600", "a\\"]
    assert r("output <- input", texts).output == texts
    assert r("output <- input", [["nul", "\0"]]).output == [["nul", "\ufffd"]]


SEEN = {
    "arrays of one kind are vectors": ("[1, null, 3]", "c(1, NA, 3)"),
    "of texts": ('["a", null]', "c('a', NA)"),
    "of truth values": ("[true, null]", "c(TRUE, NA)"),
    "of one": ("[1]", "I(1)"),
    "of nothing": ("[]", "list()"),
    "mixed arrays are lists": ('[1, "a", null, true]', "list(1, 'a', NULL, TRUE)"),
    "nested arrays are lists": ("[[1, 2], [3]]", "list(c(1, 2), I(3))"),
    "objects are named lists": ('{"a": 1, "b": null}', "list(a = 1, b = NULL)"),
    "null": ("null", "NULL"),
    "nulls": ("[null, null]", "c(NA, NA)"),
    "empty objects": ("{}", "structure(list(), names = character())"),
}


def test_an_input_is_what_one_would_write_in_r(r: Any) -> None:
    values = [json.loads(text) for text, _ in SEEN.values()]
    shown = ", ".join(text for _, text in SEEN.values())
    ended = r(f"wanted <- list({shown})\noutput <- mapply(identical, input, wanted)", values)
    assert dict(zip(SEEN, ended.output, strict=True)) == dict.fromkeys(SEEN, True)


WRITTEN = {
    "c(1, NA, NaN, Inf, -Inf)": [1, None, None, None, None],
    "c(TRUE, NA)": [True, None],
    "c('a', NA)": ["a", None],
    "NA": None,
    "1:2": [1, 2],
    "NA_integer_": None,
    "c(0.1, 1/3, 1e15, 123456789012, 1e-7)": [0.1, 1 / 3, 1e15, 123456789012, 1e-7],
    "c(a = 1, b = 2)": {"a": 1, "b": 2},
    "list(1, b = 2, 3)": {"1": 1, "b": 2, "3": 3},
    "list(NULL, list(), character())": [None, [], []],
    "I('one')": ["one"],
    "I(list(1))": [1],
    "factor(c('x', NA, 'y'))": ["x", None, "y"],
    "as.Date(c('2020-01-02', NA))": ["2020-01-02", None],
    "as.POSIXct('2020-01-02 03:04:05', tz = 'UTC') + c(0, 0.25, NA)":
        ["2020-01-02T03:04:05Z", "2020-01-02T03:04:05.25Z", None],
    "as.POSIXlt('2020-01-02 03:04:05', tz = 'Asia/Tokyo')": "2020-01-01T18:04:05Z",
    "as.difftime(1.5, units = 'mins')": 90,
    "matrix(1:4, 2)": [[1, 3], [2, 4]],
    "matrix(1:2, 1)": [[1, 2]],
    "matrix(1:2, 2)": [[1], [2]],
    "array(1:8, c(2, 2, 2))": [[[1, 5], [3, 7]], [[2, 6], [4, 8]]],
    "data.frame(a = 1:2, b = c('x', NA), c = factor(c('p', 'q')))": {"a": [1, 2], "b": ["x", None], "c": ["p", "q"]},
    "data.frame(a = 1)": {"a": [1]},
    "data.frame()": {},
    "table(c('a', 'b', 'a'))": {"a": 2, "b": 1},
    "as.raw(1:5)": "AQIDBAU=",
    "raw()": "",
    "package_version('1.2.3')": "1.2.3",
    "'quote \" backslash \\\\ tab \\t bell \\a'": 'quote " backslash \\ tab \t bell \x07',
    "'\\u00e9\\U1F600'": "é\U0001f600",
    "iconv('\\u00e9', to = 'latin1')": "é",
    "rawToChar(as.raw(c(0x61, 0xff)))": "a\ufffd",
    "structure(list(x = 1), class = 'mine')": {"x": 1},
    "pairlist(a = 1)": {"a": 1},
    "1e308 * 10": None,
}  # fmt: skip


def test_what_json_does_not_know_is_converted(r: Any) -> None:
    ended = r(f"output <- list({', '.join(WRITTEN)})")
    assert dict(zip(WRITTEN, ended.output, strict=True)) == WRITTEN


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("function(x) x", "output: a value of type closure cannot be written as JSON"),
        ("list(a = list(1, sum))", "output.a[1]: a value of type builtin cannot be written as JSON"),
        ("list(`b c` = globalenv())", 'output["b c"]: a value of type environment cannot be written as JSON'),
        ("1i", "output: a value of type complex cannot be written as JSON"),
        ("quote(f(x))", "output: a value of type language cannot be written as JSON"),
        ("list(x = list(a = 1, a = 2))", 'output.x: two entries are named "a"'),
        ("Reduce(function(x, i) list(x), 1:300, 1)", "nested more than 200 deep"),
        ("strrep('x', 1.1e7)", "11000028 bytes of JSON, more than the 10485760 allowed"),
        ("lm(mpg ~ wt, mtcars)", "output.call: a value of type language cannot be written as JSON"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(r: Any, expression: str, message: str) -> None:
    ended = r(f"output <- {expression}")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert (ended.message["kind"], ended.error["type"]) == ("invalid", "InvalidOutput")
    assert message in ended.error["message"]


def test_large_values_go_both_ways_in_fair_time(r: Any) -> None:
    value = {"numbers": [0.1 + n for n in range(100_000)], "rows": [{"id": n, "text": "é\n"} for n in range(5000)]}
    assert r("output <- input", value).output == value


def test_the_json_library_is_not_needed(r: Any) -> None:
    ended = r("output <- list('jsonlite' %in% loadedNamespaces(), input)", {"a": [1]})
    assert ended.output == [False, {"a": [1]}]
