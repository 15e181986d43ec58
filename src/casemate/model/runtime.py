"""What a runtime is: how to start it, how to find it, how to speak with it. Data, no behaviour of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Channel(StrEnum):
    """How input and output travel beside stdin and stdout.

    `frames`: the harness takes the code and the input from descriptor 3 and answers on 4.
    `text`: the code is a file, the input is JSON text on 3, the output is whatever is written to 4.
    `none`: the code is a file and there is neither.
    `isolate`: a resident worker takes code and input as frames from descriptor 3 and answers on 4, again and again.
    """

    FRAMES = "frames"
    TEXT = "text"
    NONE = "none"
    ISOLATE = "isolate"


class Ability(StrEnum):
    """What a harness may be asked besides. Each is a field of its request that stands there only if it is wanted.

    `function`: to call a function of the program by its name, with the input (`spread`: with its elements).
    `context`: to give the program a read-only context, and a library of functions. `rich`: to take and give values with
    more types than JSON has. `check`: to parse the code and run nothing.
    """

    FUNCTION = "function"
    CONTEXT = "context"
    RICH = "rich"
    CHECK = "check"


class PackageSets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sets of packages are made for a runtime, and become visible.

    `installer` names what makes them; inside, a set appears read-only at `target`, and `environment` leads the
    interpreter to it.
    """

    installer: str
    target: str
    environment: dict[str, str] = {}


class Library(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A directory of packages: where it is here, where it appears inside, and the variables that lead to it."""

    source: str
    target: str
    environment: dict[str, str] = {}


class Runtime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, weakref=True):
    """One language. In `command` the words {interpreter}, {code}, {guest}, {harness} and {addon} are replaced.

    `interpreter` lists candidates, names on PATH or absolute paths; `engine` among them means the
    interpreter that runs the engine itself. `paths` are further paths of the machine that it needs to
    read. `environment` are variables that the caller's come before; `harness_environment` are those that
    the harness stands on, which no caller can set. `harness` is the text of a file that is placed beside
    the code; its path is {harness}. `packages` are what to install where the interpreter is missing.
    `limits` override the defaults. `memory_errors` are the types of errors, or the beginnings of their
    messages, that mean a refused allocation, or what a program without such an error prints last to stderr:
    where no cgroup holds the memory limit, that is how the limit shows. A harness of `frames` may put the
    code into the work directory under its name while the program runs; `copies` are further endings under
    which it does.
    `session` is the command of a harness that stays: it takes one call after the other on descriptor 3, answers
    each on 4, keeps what they have made, and forks copies of itself.
    `waits`: the harness writes an empty frame when it waits for its request, so that a process can be
    started ahead of its program. `early_variables` are how the names of variables begin that the
    interpreter looks at when it starts: a run that sets one of them gets a process of its own.
    `runner` is the command of a harness that takes a source once and runs it for one item after the other, each in a
    fork that {zygote} makes.
    `zygote` is the command of a process that loads {zygote}, imports what follows its own arguments, and forks into
    sandboxes made ahead.
    `sets` says how sets of packages are made for it, `library` is such a set in a runtime that has one, and
    `preload` names what its zygotes have imported.
    `addon` names a directory of the package where something is built at set-up; its path inside is {addon}.
    `instead` is the runtime for programs that this one cannot serve.
    `abilities` are what its harness can do besides. `syntax`, for one that cannot check the syntax itself: a program of
    the language that gets code as its input and on stdin, and whose output says what is wrong with it.
    `globals` are the names of which its harness leaves a program only those that a run asks for.
    `debug` is what its harness records where that is asked for: some of `console`, `profile`, `steps`.
    """

    interpreter: tuple[str, ...]
    command: tuple[str, ...]
    channel: Channel = Channel.NONE
    session: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    filename: str = "main"
    harness: str = ""
    environment: dict[str, str] = {}
    harness_environment: dict[str, str] = {}
    paths: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    version_arguments: tuple[str, ...] = ("--version",)
    interactive: tuple[str, ...] = ()
    limits: dict[str, Any] = {}
    memory_errors: tuple[str, ...] = ()
    waits: bool = False
    zygote: tuple[str, ...] = ()
    early_variables: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    sets: PackageSets | None = None
    library: Library | None = None
    preload: tuple[str, ...] = ()
    addon: str = ""
    instead: str = ""
    abilities: tuple[Ability, ...] = ()
    syntax: str = ""
    globals: tuple[str, ...] = ()
    debug: tuple[str, ...] = ()
