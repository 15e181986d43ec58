"""The service's secret: what is derived from it, and the file that it is kept in."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest

from casemate.errors import ConfigError, Conflict
from casemate.store import secret_file
from casemate.tenancy.secrets import Signing, open_signing, rotate_signing

FIRST, SECOND = b"1" * 32, b"2" * 32


def path_in(data: Path) -> Path:
    return data / "secrets" / "signing.key"


def files_in(data: Path) -> list[str]:
    return sorted(found.name for found in (data / "secrets").iterdir())


# What is derived ----------------------------------------------------------------------------------


def test_a_webhooks_secret_is_a_code_of_its_keys_id() -> None:
    expected = hmac.new(FIRST, b"webhook:key_a", hashlib.sha256).digest()
    assert Signing((FIRST,)).webhook_secret("key_a") == expected
    assert Signing((FIRST,)).webhook_secret("key_b") != expected
    assert Signing((SECOND, FIRST)).webhook_secrets("key_a")[1] == expected


def test_secrets_for_one_purpose_tell_nothing_about_another() -> None:
    signing = Signing((FIRST,))
    found = {signing.webhook_secrets("a"), signing.address_secrets("a"), signing.notice_secrets("a")}
    assert len(found) == 3


def test_two_generations_are_believed_and_the_newer_signs_but_for_addresses_which_end_with_theirs() -> None:
    both = Signing((SECOND, FIRST))
    for purpose, believed in (("webhook_secrets", 2), ("notice_secrets", 2), ("address_secrets", 1)):
        older, newer = (getattr(Signing((each,)), purpose)("x")[0] for each in (FIRST, SECOND))
        assert getattr(both, purpose)("x") == (newer, older)[:believed]


def test_no_secret_shows_when_it_is_printed() -> None:
    assert repr(Signing((FIRST, SECOND))) == "Signing(2 generations)"


# The file -----------------------------------------------------------------------------------------


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        made = open_signing(tmp_path)
    finally:
        os.umask(previous)
    path = path_in(tmp_path)
    modes = [stat.S_IMODE(found.stat().st_mode) for found in (path, path.parent)]
    assert (modes, len(path.read_bytes()), files_in(tmp_path)) == ([0o600, 0o700], 32, ["signing.key"])
    assert open_signing(tmp_path).webhook_secret("k") == made.webhook_secret("k")


def test_secrets_of_two_services_differ(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    first, second = (open_signing(place).webhook_secret("k") for place in places)
    assert first != second


def test_after_a_rotation_the_last_secret_is_believed_and_the_one_before_is_not(tmp_path: Path) -> None:
    open_signing(tmp_path)
    second, third = (rotate_signing(tmp_path).webhook_secret("k") for _ in range(2))
    assert open_signing(tmp_path).webhook_secrets("k") == (third, second)
    assert (len(path_in(tmp_path).read_bytes()), stat.S_IMODE(path_in(tmp_path).stat().st_mode)) == (64, 0o600)


def test_a_secret_is_replaced_once_by_those_who_know_it_by_its_name(tmp_path: Path) -> None:
    signing = open_signing(tmp_path)
    name, address = signing.generation, signing.address_secrets("k")
    signing.rotate(name)
    assert signing.generation == open_signing(tmp_path).generation != name
    assert not set(address) & set(signing.address_secrets("k")), "no address of before is believed"
    replaced = signing.generation
    for wrong in (name, "", "é"):
        with pytest.raises(Conflict):
            signing.rotate(wrong)
    assert signing.generation == replaced, "not replaced twice"


def test_a_rotation_before_the_first_start_makes_the_secret(tmp_path: Path) -> None:
    assert repr(rotate_signing(tmp_path)) == "Signing(1 generations)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
def test_a_secret_that_others_may_have_read_is_refused_by_name(tmp_path: Path, mode: int) -> None:
    open_signing(tmp_path)
    path_in(tmp_path).chmod(mode)
    for asked in (open_signing, rotate_signing):
        with pytest.raises(ConfigError, match=f"signing.key is open to others .mode {mode:04o}") as refused:
            asked(tmp_path)
        assert str(path_in(tmp_path)) in refused.value.hint


def test_a_directory_that_is_open_to_others_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="secrets is open to others"):
        open_signing(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 63, 65, 96])
def test_a_damaged_secret_is_refused_and_stays(tmp_path: Path, size: int) -> None:
    open_signing(tmp_path)
    path_in(tmp_path).write_bytes(b"x" * size)
    for asked in (open_signing, rotate_signing):
        with pytest.raises(ConfigError, match="damaged"):
            asked(tmp_path)
    assert path_in(tmp_path).read_bytes() == b"x" * size


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    path_in(tmp_path).symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="cannot be used"):
        open_signing(tmp_path)
    path_in(tmp_path).unlink()
    os.mkfifo(path_in(tmp_path), 0o600)
    with pytest.raises(ConfigError, match="is no file"):
        open_signing(tmp_path)


def test_a_directory_of_secrets_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "secrets").symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="secrets cannot be used"):
        open_signing(tmp_path)


def test_secrets_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_signing(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        open_signing(tmp_path)


def test_one_who_was_killed_while_writing_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    made = open_signing(tmp_path).webhook_secret("k")
    (tmp_path / "secrets" / "signing.key.new").write_bytes(b"half")
    assert rotate_signing(tmp_path).webhook_secrets("k")[1] == made
    assert files_in(tmp_path) == ["signing.key"]


def test_of_two_who_make_it_at_once_both_have_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_signing(tmp_path).webhook_secret("k")
    monkeypatch.setattr(secret_file, "_is_there", lambda *_: False)  # as if it had been made in between
    assert open_signing(tmp_path).webhook_secret("k") == made
    assert files_in(tmp_path) == ["signing.key"]
