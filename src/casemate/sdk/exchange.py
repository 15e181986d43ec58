"""The client's side of every conversation with the service, written once, as generators that do no I/O.

They yield what is to be done (`Open`, `Read`, `Pause`) and are resumed with what came of it, or they yield an `Emit`
for whoever listens. The drivers in `client` and `async_client` carry it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from casemate.errors import CasemateError, ServiceError, ServiceUnavailable
from casemate.model.result import Chunk, Result
from casemate.model.service import Execution, Invocation
from casemate.sdk.events import OUTPUTS, Event, Events, Lines, chunk_of
from casemate.sdk.problems import ProblemBody, clean
from casemate.sdk.problems import error_of as problem_error
from casemate.sdk.requests import (
    EVENTS,
    Answer,
    Call,
    Failure,
    Head,
    Listing,
    Request,
    not_an_answer,
    path,
    read_document,
    read_execution,
    reader,
)
from casemate.sdk.retry import Policy, pause_before_retry
from casemate.service_limits import PAGE_MAX_COUNT, SDK_BATCH_BODY_MAX_BYTES, SDK_BATCH_ITEMS_MAX

T = TypeVar("T")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


class Open(msgspec.Struct, frozen=True):
    """Send a request; a Head or a Failure comes of it. What was open before is closed."""

    request: Request


class Read(msgspec.Struct, frozen=True):
    """Read on; bytes or a Failure come of it. No bytes: the answer has ended."""


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class Emit(msgspec.Struct, Generic[E], frozen=True):
    """Something for whoever listens."""

    value: E


SEE_OTHER: Final = 303
_EVENTS_PATH: Final = re.compile(r"/v1/executions/(\w+)/events$", re.ASCII)

Reply: TypeAlias = Head | bytes | Failure | None
Effect: TypeAlias = Open | Read | Pause
Plain: TypeAlias = Generator[Effect, Reply, T]
Steps: TypeAlias = Generator[Effect | Emit[E], Reply, T]
READ = Read()


class End(msgspec.Struct, Generic[T], frozen=True):
    """The value that steps ended with."""

    value: T


def advance(steps: Generator[E, Reply, T], reply: Reply) -> E | End[T]:
    """The next thing to do; `reply` is None the first time."""
    try:
        return steps.send(reply)
    except StopIteration as stop:
        return End(stop.value)


class Kept(Generic[E, T]):
    """Steps that have something to show, and whose value is wanted, too."""

    def __init__(self, steps: Steps[E, T]) -> None:
        self._steps = steps
        self._values: list[T] = []

    def run(self) -> Steps[E, None]:
        """The steps; `value` is there when they have ended."""
        self._values.append((yield from self._steps))

    @property
    def value(self) -> T:
        """What they ended with."""
        return self._values[0]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation takes from outside: patience, chance, and new keys of idempotency."""

    policy: Policy
    chance: Callable[[], float]
    new_key: Callable[[], str]

    def pause(self, request: Request, outcome: Answer | Failure, attempts: int) -> Pause:
        """Before the next attempt. Raises what the outcome is if there is to be none."""
        seconds = pause_before_retry(request, outcome, attempts=attempts, policy=self.policy, jitter=self.chance())
        if seconds is None:
            raise error_of(outcome)
        return Pause(seconds)

    def keyed(self, request: Request) -> Request:
        """With a key of its own if it is a POST without one: asked twice it is then done once."""
        if request.method != "POST" or request.idempotency_key:
            return request
        return msgspec.structs.replace(request, idempotency_key=self.new_key())


def error_of(outcome: Answer | Failure) -> CasemateError:
    """The error that an outcome is."""
    if isinstance(outcome, Answer):
        return outcome.error()
    return ServiceUnavailable(outcome.message, hint="is `casemate serve` running, and is that its address?")


# One answer ----------------------------------------------------------------------------------------


def carry_out(context: Context, call: Call[T]) -> Plain[T]:
    """Ask, again if need be, and read the answer."""
    answer = yield from _answer(context, context.keyed(call.request))
    return call.read(answer.body)


def _answer(context: Context, request: Request) -> Plain[Answer]:
    attempts = 0
    while True:
        attempts += 1
        outcome = yield from _once(request)
        if isinstance(outcome, Answer) and outcome.head.is_good:
            return outcome
        yield context.pause(request, outcome, attempts)


def _once(request: Request) -> Plain[Answer | Failure]:
    reply = yield Open(request)
    return (yield from rest(reply)) if isinstance(reply, Head) else failed(reply)


def rest(head: Head) -> Plain[Answer | Failure]:
    """The body of an answer that has begun."""
    pieces: list[bytes] = []
    size_bytes = 0
    while True:
        reply = yield READ
        if not isinstance(reply, bytes):
            return failed(reply)
        if not reply:
            return Answer(head=head, body=b"".join(pieces))
        size_bytes += len(reply)
        if size_bytes > head.body_max_bytes:
            raise ServiceError(f"the service's answer is larger than {head.body_max_bytes} bytes", status=head.status)
        pieces.append(reply)


def failed(reply: Reply) -> Failure:
    """A reply that is no answer."""
    assert isinstance(reply, Failure)  # noqa: S101  (the drivers' side of it)
    return reply


# Lists ---------------------------------------------------------------------------------------------


def pages(context: Context, listing: Listing[T]) -> Steps[T, None]:
    """The items of a list, page after page."""
    left = listing.limit
    cursor: str | None = None
    while left is None or left > 0:
        request = _page_request(listing, left, cursor)
        page = read_document((yield from _answer(context, request)).body)
        items = _items(page, listing.item)[:left]
        for item in items:
            yield Emit(item)
        cursor = page.get("next_cursor")
        left = None if left is None else left - len(items)
        if not cursor:
            return


def _page_request(listing: Listing[Any], left: int | None, cursor: str | None) -> Request:
    if not listing.in_pages:
        return listing.request
    size = PAGE_MAX_COUNT if left is None else min(left, PAGE_MAX_COUNT)
    extra = (("limit", str(size)), *((("cursor", cursor),) if cursor else ()))
    return msgspec.structs.replace(listing.request, query=(*listing.request.query, *extra))


def _items(page: dict[str, Any], kind: type[T]) -> list[T]:
    try:
        return msgspec.convert(page.get("items"), list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise not_an_answer(f"list of {kind.__name__}") from error


# Streams of events ---------------------------------------------------------------------------------


class Followed(Protocol[E_co]):
    """What is followed by a stream of events."""

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to come."""

    def take(self, event: Event) -> E_co | None:
        """What an event has to show, if it has something."""


class Resumed(Followed[E_co], Protocol[E_co]):
    """What can be followed on from where it broke off. `place`: how far that is."""

    place: str

    @property
    def request(self) -> Request:
        """What goes on from here."""


def resume(context: Context, followed: Resumed[E]) -> Steps[E, None]:
    """Tell what a stream tells as it comes, everything once, whatever becomes of the connection, until it has ended."""
    attempts = 0
    while True:
        attempts += 1
        place, request = followed.place, followed.request
        outcome = yield from _resume_once(request, followed)
        if outcome is None:
            return
        if followed.place != place:
            attempts = 1
        yield context.pause(request, outcome, attempts)


def _resume_once(request: Request, followed: Followed[E]) -> Steps[E, Answer | Failure | None]:
    """None when it has come to its end."""
    head = yield Open(request)
    if not isinstance(head, Head):
        return failed(head)
    if not head.is_good or head.media_type != EVENTS:
        return (yield from rest(head))
    return (yield from _told(followed))


def _told(followed: Followed[E]) -> Steps[E, Failure | None]:
    """What the stream that is open tells; None when it has come to its end."""
    events = Events()
    while not followed.has_ended:
        reply = yield READ
        if not isinstance(reply, bytes):
            return failed(reply)
        if not reply:
            return Failure(message="the service ended a stream before its end")
        for event in events.feed(reply):
            found = followed.take(event)
            if found is not None:
                yield Emit(found)
    return None


# An execution, followed ----------------------------------------------------------------------------


class Following:
    """How far an execution has been followed; `id` is empty until it was accepted."""

    def __init__(self) -> None:
        self.id = ""
        self.unended = ""
        self.place = ""
        self.ended: Execution | None = None
        self._offsets = dict.fromkeys(OUTPUTS, 0)

    @property
    def has_ended(self) -> bool:
        return self.ended is not None

    @property
    def result(self) -> Result | None:
        return None if self.ended is None else self.ended.result

    def take_unended(self) -> str:
        """The id of what may still run, once; whoever asks is to end it."""
        found, self.unended = self.unended, ""
        return found if self.ended is None else ""

    def take(self, event: Event) -> Chunk | None:
        """What an event has to show, if that is new."""
        self.place = event.id or self.place
        if event.kind == "accepted":
            self.accept(read_execution(event.data).id)
        elif event.kind == "result":
            self.ended = read_execution(event.data)
        elif event.kind in OUTPUTS:
            return self._new(chunk_of(event))
        return None

    def accept(self, execution_id: str) -> None:
        """It runs, or will."""
        self.id = self.unended = execution_id

    def _new(self, chunk: Chunk) -> Chunk | None:
        """What of a chunk nobody has seen yet."""
        seen = max(0, self._offsets[chunk.stream] - chunk.offset)
        self._offsets[chunk.stream] = max(self._offsets[chunk.stream], chunk.offset + len(chunk.data))
        if seen >= len(chunk.data):
            return None
        return Chunk(chunk.stream, chunk.data[seen:], chunk.offset + seen) if seen else chunk

    def next_request(self, request: Request) -> Request:
        """What goes on from here."""
        if not self.id:
            return request
        return Request(
            method="GET", path=path("executions", self.id, "events"), accept=EVENTS, last_event_id=self.place
        )


def follow(context: Context, request: Request, following: Following) -> Steps[Chunk, Execution]:
    """Have something executed and tell its output as it comes, once, whatever becomes of the connection."""
    request = context.keyed(request)
    attempts = 0
    while True:
        attempts += 1
        place = following.id, following.place
        outcome = yield from _follow_once(request, following)
        if outcome is None:
            return (yield from _with_result(context, following))
        if (following.id, following.place) != place:
            attempts = 1
        request = following.next_request(request)
        yield context.pause(request, outcome, attempts)


def _follow_once(request: Request, following: Following) -> Steps[Chunk, Answer | Failure | None]:
    """None when it has come to its end."""
    head = yield Open(request)
    if not isinstance(head, Head):
        return failed(head)
    if head.status == SEE_OTHER and (found := _EVENTS_PATH.search(head.headers.get("location", ""))):
        following.accept(found[1])
        return Failure(message="the service streams elsewhere what was begun before")
    if not head.is_good:
        return (yield from rest(head))
    if head.media_type != EVENTS:
        return (yield from _taken_up(head, following))
    return (yield from _told(following))


def _taken_up(head: Head, following: Following) -> Plain[Answer | Failure | None]:
    """An answer that is no stream tells of an execution that there was already."""
    answer = yield from rest(head)
    if isinstance(answer, Failure):
        return answer
    following.accept(read_execution(answer.body).id)
    return Failure(message="the service does not stream what it has begun")


def _with_result(context: Context, following: Following) -> Plain[Execution]:
    """The execution with its Result, which is asked for if the stream did not have it. Raises what was refused."""
    found = following.ended
    assert found is not None  # noqa: S101
    following.unended = ""
    if found.result is None:
        request = Request(method="GET", path=path("executions", found.id))
        found = yield from carry_out(context, Call(request, read_execution))
        if found.result is None:
            raise not_an_answer("Result")
        following.ended = found
    refusal = _refusal(found)
    if refusal is not None:
        raise refusal
    return found


def _refusal(found: Execution) -> CasemateError | None:
    """What was refused after it had been accepted ends in a Result without a sandbox that has our error."""
    result = found.result
    if result is None or result.error is None or result.isolation.backend:
        return None
    field, colon, _ = result.error.message.partition(": ")
    problem = ProblemBody(
        code=result.error.type,
        message=clean(result.error.message),
        field=field if colon else None,
        request_id=found.request_id,
    )
    return problem_error(0, problem, None)


# Batches -------------------------------------------------------------------------------------------


class Sent(msgspec.Struct, frozen=True):
    """An item on its way: its id, and all of it as JSON."""

    id: str
    body: bytes


_read_item = reader(Invocation)


def portions(items: Iterable[Sent]) -> Iterator[list[Sent]]:
    """Items in as many requests as their number and size need."""
    portion: list[Sent] = []
    size_bytes = 0
    for item in items:
        full = len(portion) >= SDK_BATCH_ITEMS_MAX or size_bytes + len(item.body) > SDK_BATCH_BODY_MAX_BYTES
        if portion and full:
            yield portion
            portion, size_bytes = [], 0
        portion.append(item)
        size_bytes += len(item.body)
    if portion:
        yield portion


def batch(
    context: Context, build: Callable[[Sequence[bytes]], Request], items: Iterable[Sent]
) -> Steps[Invocation, None]:
    """What becomes of each item, in their order. `build` makes a request of items that are JSON already."""
    for portion in portions(items):
        done = 0
        attempts = 0
        while done < len(portion):
            attempts += 1
            # What was not answered is asked again under a new key: the connection that is gone has ended the rest.
            left = portion[done:]
            request = context.keyed(build([item.body for item in left]))
            answered, outcome = yield from _batch_once(request, left)
            done += answered
            if outcome is not None:
                attempts = 1 if answered else attempts
                yield context.pause(request, outcome, attempts)


def _batch_once(request: Request, items: Sequence[Sent]) -> Steps[Invocation, tuple[int, Answer | Failure | None]]:
    """How many items were answered, and what went wrong, if anything did."""
    head = yield Open(request)
    if not isinstance(head, Head):
        return 0, failed(head)
    if not head.is_good:
        return 0, (yield from rest(head))
    lines = Lines()
    answered = 0
    while answered < len(items):
        reply = yield READ
        if not isinstance(reply, bytes):
            return answered, failed(reply)
        if not reply:
            return answered, Failure(message="the service ended a batch before its end")
        for line in filter(None, lines.feed(reply)):
            yield Emit(_checked(line, items[answered : answered + 1]))
            answered += 1
    return answered, None


def _checked(line: bytes, expected: Sequence[Sent]) -> Invocation:
    found = _read_item(line)
    if not expected or found.id != expected[0].id:
        raise ServiceError("the service's answers do not match the items that were sent")
    return found
