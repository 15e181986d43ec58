"""Records of functions: versions, aliases, and going back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Connection, create_engine, func, select
from tests.integration.records import tenant, with_tenant

from casemate.errors import Conflict, InvalidInput, NotFound
from casemate.store import columns, functions, schema, tenants
from casemate.store.database import Database
from casemate.store.functions import Alias, Function, Move, NewVersion, Version

LIVE = "live"


@pytest.fixture
def owner(database: Database) -> str:
    return with_tenant(database)


def new(digest: str = "d1", **changes: Any) -> NewVersion:
    values: dict[str, Any] = {"name": "f", "digest": digest, "source": digest.encode(), "runtime": "python"}
    return NewVersion(**(values | changes))


def publish(
    database: Database, owner: str, digest: str, *, alias: str | None = LIVE, at_us: int = 10, **changes: Any
) -> tuple[Version, bool]:
    added = new(digest, **changes)
    return database.write_now(
        partial(functions.publish, tenant_id=owner, new=added, alias=alias, at_us=at_us, by="key_x")
    )


def move(database: Database, owner: str, number: int, *, alias: str = LIVE, at_us: int = 20) -> Alias:
    asked = partial(functions.move_alias, tenant_id=owner, name="f", alias=alias, number=number)
    return database.write_now(partial(asked, at_us=at_us, by="key_y"))


def rollback(database: Database, owner: str, *, alias: str = LIVE, at_us: int = 30) -> Alias:
    asked = partial(functions.rollback, tenant_id=owner, name="f", alias=alias, at_us=at_us, by="key_z")
    return database.write_now(asked)


def get(database: Database, owner: str, name: str = "f") -> Function:
    return database.read_now(partial(functions.get_function, tenant_id=owner, name=name))


def moves(database: Database, owner: str, alias: str = LIVE) -> tuple[Move, ...]:
    return database.read_now(partial(functions.moves, tenant_id=owner, name="f", alias=alias))


# Publishing ---------------------------------------------------------------------------------------


def test_versions_get_numbers_and_the_alias_is_at_the_last(database: Database, owner: str) -> None:
    first, is_new = publish(database, owner, "d1", input_schema={"type": "object"}, options={"macros": True})
    assert is_new
    second, _ = publish(database, owner, "d2", at_us=11, description="better", labels={"team": "a"}, runtime="r")
    assert (first.number, second.number) == (1, 2)
    found = get(database, owner)
    assert found == Function(
        id=first.function_id,
        tenant_id=owner,
        name="f",
        latest=2,
        aliases={LIVE: 2},
        created_us=10,
        updated_us=11,
        description="better",
        labels={"team": "a"},
        runtime="r",
    )
    assert database.read_now(partial(functions.version, tenant_id=owner, name="f", number=1)) == first
    assert database.read_now(partial(functions.resolve, tenant_id=owner, name="f", alias=LIVE)) == second
    assert (first.input_schema, first.output_schema, first.options) == ({"type": "object"}, None, {"macros": True})


def test_the_same_again_is_the_version_that_is_there(database: Database, owner: str) -> None:
    first, _ = publish(database, owner, "d1")
    publish(database, owner, "d2")
    assert publish(database, owner, "d1", at_us=50) == (first, False)
    assert get(database, owner).aliases == {LIVE: 1}
    assert publish(database, owner, "d1", at_us=60) == (first, False)
    assert [(step.from_number, step.to_number) for step in moves(database, owner)] == [(2, 1), (1, 2), (None, 1)]


def test_without_an_alias_none_is_moved(database: Database, owner: str) -> None:
    publish(database, owner, "d1")
    publish(database, owner, "d2", alias=None)
    assert (get(database, owner).latest, get(database, owner).aliases) == (2, {LIVE: 1})


def test_many_that_publish_at_once_get_all_numbers_without_gaps(database: Database, owner: str) -> None:
    async def scenario() -> list[tuple[Version, bool]]:
        asked = partial(functions.publish, tenant_id=owner, alias=LIVE, at_us=1, by="key_x")
        return await asyncio.gather(*(database.write(partial(asked, new=new(f"d{i % 20}"))) for i in range(60)))

    outcomes = asyncio.run(scenario())
    assert sorted(found.number for found, is_new in outcomes if is_new) == list(range(1, 21))
    assert len(moves(database, owner)) == 60


def test_what_cannot_be_published_whole_is_not_published(
    database: Database, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "ALIASES_A_FUNCTION_MAX", 1)
    publish(database, owner, "d1")
    with pytest.raises(Conflict, match="1 aliases already"):
        publish(database, owner, "d2", alias="next")
    assert get(database, owner).latest == 1
    assert publish(database, owner, "d2")[0].number == 2


@pytest.mark.parametrize("name", ["FUNCTIONS_A_TENANT_MAX", "FUNCTION_VERSIONS_MAX"])
def test_what_a_tenant_has_too_much_of_is_refused_with_a_hint(
    database: Database, owner: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(functions, name, 2)
    for number in (1, 2):
        publish(database, owner, f"d{number}")
        publish(database, owner, "d", name=f"g{number}") if name == "FUNCTION_VERSIONS_MAX" else None
    if name == "FUNCTIONS_A_TENANT_MAX":
        publish(database, owner, "d", name="g")
    with pytest.raises(Conflict) as refused:
        publish(database, owner, "d3", name="f" if name == "FUNCTION_VERSIONS_MAX" else "h")
    assert refused.value.hint
    assert publish(database, owner, "d1")[1] is False


def test_without_its_tenant_nothing_is_published(database: Database) -> None:
    with pytest.raises(NotFound, match="no tenant"):
        publish(database, "ten_none", "d1")


# Aliases ------------------------------------------------------------------------------------------


def test_an_alias_is_moved_and_goes_back_step_by_step(database: Database, owner: str) -> None:
    for digest in ("d1", "d2", "d3"):
        publish(database, owner, digest)
    assert move(database, owner, 1) == Alias(name="f", alias=LIVE, number=1, moved_us=20, moved_by="key_y")
    assert rollback(database, owner) == Alias(name="f", alias=LIVE, number=3, moved_us=30, moved_by="key_z")
    assert [rollback(database, owner).number for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict, match="no version before") as refused:
        rollback(database, owner)
    assert refused.value.hint
    assert moves(database, owner)[0] == Move(from_number=2, to_number=1, is_rollback=True, at_us=30, moved_by="key_z")
    assert len(moves(database, owner)) == 7


def test_after_a_move_the_way_back_leads_to_where_it_came_from(database: Database, owner: str) -> None:
    for digest in ("d1", "d2", "d3"):
        publish(database, owner, digest)
    rollback(database, owner)
    move(database, owner, 1)
    assert [rollback(database, owner).number for _ in range(2)] == [2, 1]


def test_an_alias_that_is_there_already_is_not_moved(database: Database, owner: str) -> None:
    publish(database, owner, "d1")
    assert move(database, owner, 1).moved_us == 10
    assert len(moves(database, owner)) == 1
    assert get(database, owner).updated_us == 10


def test_a_history_has_a_bound_and_what_it_forgets_cannot_be_gone_back_to(
    database: Database, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "ALIAS_MOVES_KEPT_MAX", 3)
    for number in range(1, 7):
        publish(database, owner, f"d{number}")
    assert [step.to_number for step in moves(database, owner)] == [6, 5, 4]
    assert rollback(database, owner).number == 5
    assert rollback(database, owner).number == 4
    with pytest.raises(Conflict):
        rollback(database, owner)


def test_a_deleted_alias_is_gone_with_its_history(database: Database, owner: str) -> None:
    for digest in ("d1", "d2"):
        publish(database, owner, digest)
    gone = partial(functions.delete_alias, tenant_id=owner, name="f", alias=LIVE)
    database.write_now(gone)
    for asked in (functions.resolve, functions.moves):
        with pytest.raises(NotFound, match="no alias 'live'"):
            database.read_now(partial(asked, tenant_id=owner, name="f", alias=LIVE))
    with pytest.raises(NotFound):
        database.write_now(gone)
    move(database, owner, 1)
    with pytest.raises(Conflict):
        rollback(database, owner)


# Lists --------------------------------------------------------------------------------------------


def test_functions_are_listed_in_pages_newest_first(database: Database, owner: str) -> None:
    for number in range(5):
        publish(database, owner, "d", name=f"f{number}", at_us=number // 2, labels={"n": str(number % 2)})
    publish(database, with_tenant(database, "other"), "d", name="theirs")
    listed = partial(functions.list_functions, tenant_id=owner, limit=2)
    names, cursor = [], None
    for _ in range(3):
        page = database.read_now(partial(listed, cursor=cursor))
        names += [found.name for found in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert names[0] == "f4"
    assert sorted(names) == [f"f{number}" for number in range(5)]
    assert all(found.aliases == {LIVE: 1} for found in database.read_now(listed).items)


def test_functions_are_found_by_labels_of_their_latest_version(database: Database, owner: str) -> None:
    publish(database, owner, "d1", name="old", labels={"team": "a"})
    publish(database, owner, "d2", name="old", labels={"team": "b"})
    publish(database, owner, "d1", name="new", labels={"team": "a", "x": "y"})

    def found(labels: dict[str, str]) -> list[str]:
        listed = partial(functions.list_functions, tenant_id=owner, labels=labels)
        return [one.name for one in database.read_now(listed).items]

    assert (found({"team": "a"}), found({"team": "b"})) == (["new"], ["old"])
    assert (found({"team": "a", "x": "y"}), found({"team": "b", "x": "y"})) == (["new"], [])


def test_versions_are_listed_in_pages_newest_first(database: Database, owner: str) -> None:
    for number in range(1, 6):
        publish(database, owner, f"d{number}", at_us=10 - number)
    listed = partial(functions.versions, tenant_id=owner, name="f", limit=2)
    numbers, cursor = [], None
    for _ in range(3):
        page = database.read_now(partial(listed, cursor=cursor))
        numbers += [(found.number, found.source) for found in page.items]
        cursor = page.next_cursor
    assert (cursor, numbers) == (None, [(number, f"d{number}".encode()) for number in (5, 4, 3, 2, 1)])


def test_a_page_of_large_versions_ends_early(database: Database, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "SOURCES_A_PAGE_MAX_BYTES", 25)
    for number in range(1, 5):
        publish(database, owner, f"d{number}", source=bytes(30 if number == 2 else 10))
    listed = partial(functions.versions, tenant_id=owner, name="f")
    pages: list[list[int]] = []
    cursor = None
    while not pages or cursor:
        page = database.read_now(partial(listed, cursor=cursor))
        pages.append([found.number for found in page.items])
        cursor = page.next_cursor
    assert pages == [[4, 3], [2], [1]]


def test_a_cursor_of_another_list_is_refused(database: Database, owner: str) -> None:
    for name in ("f", "g"):
        publish(database, owner, "d1", name=name)
        publish(database, owner, "d2", name=name)
    page = database.read_now(partial(functions.versions, tenant_id=owner, name="f", limit=1))
    with pytest.raises(InvalidInput, match="cursor"):
        database.read_now(partial(functions.versions, tenant_id=owner, name="g", cursor=page.next_cursor))


# Whose --------------------------------------------------------------------------------------------


def test_another_tenants_function_is_not_there(database: Database, owner: str) -> None:
    publish(database, owner, "d1")
    publish(database, owner, "d2")
    other = with_tenant(database, "other")
    now: dict[str, Any] = {"at_us": 1, "by": "key_x"}
    for asked in (
        partial(functions.get_function, name="f"),
        partial(functions.versions, name="f"),
        partial(functions.version, name="f", number=1),
        partial(functions.resolve, name="f", alias=LIVE),
        partial(functions.moves, name="f", alias=LIVE),
        partial(functions.move_alias, name="f", alias=LIVE, number=1, **now),
        partial(functions.rollback, name="f", alias=LIVE, **now),
        partial(functions.delete_alias, name="f", alias=LIVE),
        partial(functions.delete_function, name="f"),
    ):
        with pytest.raises(NotFound, match="there is no function 'f'"):
            database.write_now(partial(asked, tenant_id=other))
    assert database.read_now(partial(functions.list_functions, tenant_id=other)).items == ()
    assert publish(database, other, "d1")[0].number == 1
    assert (get(database, owner).latest, get(database, owner).aliases) == (2, {LIVE: 2})


def test_numbers_and_aliases_that_are_not_there_are_named(database: Database, owner: str) -> None:
    publish(database, owner, "d1")
    with pytest.raises(NotFound, match="'f' has no version 2"):
        move(database, owner, 2)
    with pytest.raises(NotFound, match="'f' has no alias 'next'"):
        rollback(database, owner, alias="next")


# Deleting -----------------------------------------------------------------------------------------


def test_a_new_function_of_a_deleted_name_is_another_with_new_numbers(database: Database, owner: str) -> None:
    old, _ = publish(database, owner, "d1")
    publish(database, owner, "d2")
    database.write_now(partial(functions.delete_function, tenant_id=owner, name="f"))
    for asked in (partial(get, database, owner), partial(moves, database, owner)):
        with pytest.raises(NotFound, match="no function"):
            asked()
    assert database.read_now(partial(functions.list_functions, tenant_id=owner)).items == ()
    found, is_new = publish(database, owner, "d1", at_us=70)
    assert (found.number, is_new, found.function_id == old.function_id) == (3, True, False)
    assert (get(database, owner).created_us, get(database, owner).aliases) == (70, {LIVE: 3})
    with pytest.raises(NotFound, match="no version 1"):
        move(database, owner, 1)
    with pytest.raises(Conflict):
        rollback(database, owner)


def test_of_names_that_were_deleted_long_ago_nothing_is_kept(
    database: Database, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "FUNCTIONS_DELETED_KEPT_MAX", 2)
    for number in range(4):
        publish(database, owner, "d", name=f"f{number}", at_us=number)
        database.write_now(partial(functions.delete_function, tenant_id=owner, name=f"f{number}"))
    count = select(func.count()).select_from(schema.functions)
    assert database.read_now(lambda connection: connection.execute(count).scalar_one()) == 2
    assert publish(database, owner, "d", name="f3")[0].number == 2
    assert publish(database, owner, "d", name="f0")[0].number == 1


def test_functions_of_a_deleted_tenant_are_gone(database: Database, owner: str) -> None:
    publish(database, owner, "d1")
    database.write_now(partial(tenants.remove, tenant_id=owner))
    for table in (schema.functions, schema.function_versions, schema.aliases, schema.alias_moves):
        count = select(func.count()).select_from(table)
        assert database.read_now(partial(Connection.scalar, statement=count)) == 0


# Any order ----------------------------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """Publishing, moving, going back and deleting in any order, beside a model: a list of where each alias was."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://")
        self.connection = self.engine.connect()
        columns.metadata.create_all(self.connection)
        self.tenant = tenant()
        tenants.insert_tenant(self.connection, self.tenant)
        self.numbers: dict[str, int] = {}
        self.places: dict[str, list[int]] = {}
        self.next_number = 1
        self.steps = 0

    def now(self) -> dict[str, Any]:
        self.steps += 1
        return {"at_us": self.steps, "by": "key_x"}

    def went(self, alias: str, number: int) -> None:
        been = self.places.setdefault(alias, [])
        if not been or been[-1] != number:
            been.append(number)

    @rule(digest=st.sampled_from("abcd"), alias=st.sampled_from([None, "live", "next"]))
    def publish(self, digest: str, alias: str | None) -> None:
        found, is_new = functions.publish(self.connection, self.tenant.id, new(digest), alias=alias, **self.now())
        assert is_new is (digest not in self.numbers)
        if is_new:
            self.numbers[digest] = self.next_number
            self.next_number += 1
        assert found.number == self.numbers[digest]
        if alias is not None:
            self.went(alias, found.number)

    @rule(number=st.integers(1, 6), alias=st.sampled_from(["live", "next"]))
    def move(self, number: int, alias: str) -> None:
        asked = partial(functions.move_alias, self.connection, self.tenant.id, "f", alias, number, **self.now())
        if number not in self.numbers.values():
            with pytest.raises(NotFound):
                asked()
        else:
            assert asked().number == number
            self.went(alias, number)

    @rule(alias=st.sampled_from(["live", "next"]))
    def go_back(self, alias: str) -> None:
        been = self.places.get(alias, [])
        asked = partial(functions.rollback, self.connection, self.tenant.id, "f", alias, **self.now())
        if len(been) < 2:
            with pytest.raises(Conflict if been else NotFound):
                asked()
        else:
            been.pop()
            assert asked().number == been[-1]

    @rule(alias=st.sampled_from(["live", "next"]))
    def delete_alias(self, alias: str) -> None:
        asked = partial(functions.delete_alias, self.connection, self.tenant.id, "f", alias)
        if self.places.pop(alias, None) is None:
            with pytest.raises(NotFound):
                asked()
        else:
            asked()

    @rule()
    def delete(self) -> None:
        asked = partial(functions.delete_function, self.connection, self.tenant.id, "f")
        if not self.numbers:
            with pytest.raises(NotFound):
                asked()
        else:
            asked()
            self.numbers, self.places = {}, {}

    @invariant()
    def is_as_it_should_be(self) -> None:
        listed = functions.list_functions(self.connection, self.tenant.id).items
        if not self.numbers:
            assert listed == ()
            return
        aliases = {alias: been[-1] for alias, been in self.places.items()}
        assert (listed[0].latest, listed[0].aliases) == (max(self.numbers.values()), aliases)
        for alias, number in aliases.items():
            assert functions.resolve(self.connection, self.tenant.id, "f", alias).number == number
            history = functions.moves(self.connection, self.tenant.id, "f", alias)
            assert [step.from_number for step in history[:-1]] == [step.to_number for step in history[1:]]
            assert (history[0].to_number, history[-1].from_number) == (number, None)

    def teardown(self) -> None:
        self.connection.close()
        self.engine.dispose()


TestAnything = Anything.TestCase
TestAnything.settings = settings(TestAnything.settings, max_examples=40, stateful_step_count=30)
