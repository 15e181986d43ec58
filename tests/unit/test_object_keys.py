"""What objects are called: nothing that anybody writes names a place of another tenant, or of the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.blobs import keys
from casemate.errors import InvalidInput
from casemate.object_limits import OBJECT_NAME_MAX_BYTES, OBJECT_PATH_MAX_BYTES

HOSTILE = [
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "../other",
    "a/../../b",
    "a//b",
    "a/",
    "a/./b",
    "a\0b",
    "a\nb",
    "a\rb",
    "\x1b[31mred",
    "a\x7fb",
    "a\x85b",
    "\u202etxt.exe",
    "\u2066x",
    "\ufeffx",
    "a\ud800b",
    "x" * (OBJECT_NAME_MAX_BYTES + 1),
    "x/" * 64 + "x",
    "ab/" * 300 + "x",
]
TEXT = st.text(min_size=0, max_size=60)
TRICKY = st.lists(st.sampled_from([*"/.\\%ab\0\n", "..", "jobs", "shared", "uploads", "output"]), max_size=12).map(
    "".join
)


@pytest.mark.parametrize("path", HOSTILE)
def test_f8_f24_hostile_paths_are_refused_by_name(path: str) -> None:
    for name in (f"shared/{path}", f"templates/{path}", f"jobs/j/output/{path}"):
        with pytest.raises(InvalidInput, match=r"^key: "):
            keys.key_of("ten_a", name)


@pytest.mark.parametrize(
    "name",
    [
        "shared",
        "jobs/j",
        "jobs/j/output",
        "jobs/j/other/x",
        "jobs/../output/x",
        "jobs/.j/output/x",
        "uploads/u/x",
        "x/y",
    ],
)
def test_f24_what_is_in_no_area_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        keys.key_of("ten_a", name)


@pytest.mark.parametrize("job", ["", ".", "..", "a/b", "-x", "x" * 65, "ä", "a\0"])
def test_f24_a_job_is_named_by_its_id_alone(job: str) -> None:
    with pytest.raises(InvalidInput):
        keys.job_key("ten_a", job, keys.OUTPUT, "x")


@given(st.one_of(TEXT, TRICKY, TRICKY.map("shared/{}".format), TRICKY.map("jobs/j/output/{}".format)))
def test_f24_any_name_is_a_place_of_its_own_tenant_or_refused(name: str) -> None:
    try:
        key = keys.key_of("ten_a", name)
    except InvalidInput:
        return
    place = keys.place_of(key)
    assert place.tenant == "ten_a"
    assert place.area in keys.AREAS
    assert keys.name_in("ten_a", key) == name
    assert not {"", ".", ".."} & set(key.split("/"))
    assert len(key.encode()) < 1024


@given(st.text(max_size=80), st.text(max_size=80))
def test_f8_names_of_programs_become_harmless_and_stay_different(one: str, other: str) -> None:
    assert (keys.harmless(one) == keys.harmless(other)) == (one == other)
    keys.harmless(one).encode()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a\nb", r"a\x0ab"),
        (r"a\x0ab", r"a\x5cx0ab"),
        ("plain", "plain"),
        ("\u202ex", r"\u202ex"),
        ("ü ß", "ü ß"),
        ("\ud800", r"\ud800"),
    ],
)
def test_f8_a_harmless_name_shows_what_was_there(path: str, shown: str) -> None:
    assert keys.harmless(path) == shown


def test_the_longest_path_is_taken() -> None:
    path = "/".join(["x" * 99] * (OBJECT_PATH_MAX_BYTES // 100))
    assert keys.key_of("t" * 40, f"jobs/{'j' * 64}/artifacts/{path}").endswith(path)


def test_a_jobs_prefixes_end_where_its_name_does() -> None:
    assert keys.job_prefix("ten_a", "j") == "ten_a/jobs/j/"
    assert keys.job_prefix("ten_a", "input") == "ten_a/jobs/input/"
    assert keys.job_prefix("ten_a", "j", keys.LOGS) == "ten_a/jobs/j/logs/"


def test_a_prefix_is_never_beyond_its_tenant() -> None:
    assert keys.prefix_of("ten_a", "../ten_b/") == "ten_a/../ten_b/"
    with pytest.raises(InvalidInput):
        keys.prefix_of("ten_a", "x\0")
    with pytest.raises(InvalidInput):
        keys.prefix_of("ten_a", "x" * (OBJECT_PATH_MAX_BYTES + 1))
