"""What a program did not catch, as the interpreter itself would print it, and as a reply.

Only what the interpreter has loaded anyway is imported: the program may have left hardly any memory.
"""

from __future__ import annotations

import io
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TEXT_MAX_CHARS = 16_384


def render(error: BaseException, path: str, source: str | None) -> str:
    """The text that the interpreter prints for this error. `source`: the text at `path` if it is on no disk."""
    stderr, real_open = sys.stderr, io.open
    text = io.StringIO()

    def open_source(file: Any, *args: Any, **kwargs: Any) -> Any:
        if file != path or source is None:
            return real_open(file, *args, **kwargs)
        # The interpreter insists on a descriptor.
        fd = posix.memfd_create("source", posix.MFD_CLOEXEC)
        posix.write(fd, source.encode())
        posix.lseek(fd, 0, io.SEEK_SET)
        return real_open(fd, *args, **kwargs)

    sys.stderr, io.open = text, open_source
    try:
        sys.__excepthook__(type(error), error, error.__traceback__)
    finally:
        sys.stderr, io.open = stderr, real_open
    return text.getvalue()


def show(error: BaseException, text: str) -> None:
    """Print the rendered text: rendering again would run the program's `__str__` twice."""
    if getattr(sys.stderr, "closed", True):
        # What becomes of a lost stderr is the interpreter's business.
        sys.__excepthook__(type(error), error, error.__traceback__)
    else:
        sys.stderr.write(text)


def show_by(hook: Callable[..., Any], kind: type[BaseException], error: BaseException) -> None:
    """Call the program's own hook; if it fails, say so as the interpreter does, with no frame of ours."""
    try:
        hook(kind, error, error.__traceback__)
    except SystemExit:
        raise
    except BaseException as failed:
        traceback = failed.__traceback__
        failed.__traceback__ = traceback.tb_next if traceback else None
        failed.__context__ = None
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(failed), failed, failed.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, error.__traceback__)


def payload(error: BaseException, text: str) -> bytes:
    """The reply for an exception. `str(error)` is the program's code and may do anything."""
    kind = type(error)
    plain = kind.__module__ in {"builtins", "__main__"}
    name = kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException:
        message = "<exception str() failed>"
    fields = {"type": name, "message": message[:TEXT_MAX_CHARS], "traceback": text[-TEXT_MAX_CHARS:]}
    return _compose("exception", fields)


def _compose(kind: str, fields: dict[str, str]) -> bytes:
    """An error reply. Half of a surrogate pair, which UTF-8 cannot hold, becomes the replacement character."""
    from _json import encode_basestring

    pairs = ",".join(f'"{key}":{encode_basestring(value)}' for key, value in fields.items())
    text = f'{{"kind":"{kind}","error":{{{pairs}}}}}'
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
