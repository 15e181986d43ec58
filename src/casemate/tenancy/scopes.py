"""What a key may do: patterns that allow and patterns that deny. Pure. A denial always wins."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from casemate.errors import InvalidInput, PermissionDenied
from casemate.service_limits import SCOPE_MAX_CHARS, SCOPES_A_KEY_MAX

ADMIN: Final = "admin"
INVOKE: Final = "functions:invoke:"
SCOPES: Final = (
    "executions:run",
    "executions:read",
    "executions:cancel",
    "functions:read",
    "functions:publish",
    "jobs:submit",
    "jobs:read",
    "jobs:cancel",
    "jobs:manage",
    "schedules:manage",
    "flows:read",
    "images:push",
    "metrics:read",
    "workers:read",
    "usage:read",
    "budgets:manage",
    "webhooks:manage",
    "objects:read",
    "objects:write",
    "objects:sign",
    "secrets:manage",
    "audit:read",
    "tenants:read",
    "tenants:write",
    "keys:read",
    "keys:write",
    ADMIN,
)
"""And `functions:invoke:` with the name of a function or of a runtime. `admin` stands for all of them."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Scopes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is allowed, but for what is denied. A pattern is a scope, or the beginning of some and a star."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def permits(self, *names: str) -> bool:
        """Whether something may be done that goes by any of these names: one must be allowed, and none denied."""
        if any(_matches(pattern, name) for pattern in self.deny for name in names):
            return False
        return any(pattern == ADMIN or _matches(pattern, name) for pattern in self.allow for name in names)

    def require(self, *names: str) -> None:
        """Raise PermissionDenied, with the first of the names, for what is not permitted."""
        if not self.permits(*names):
            raise PermissionDenied(names[0])

    def within(self, granting: Scopes) -> Scopes:
        """These scopes for a key that a key with the scopes `granting` makes: what that is denied, this is denied, too.

        Raises PermissionDenied for what the granting key may not do itself.
        """
        for pattern in self.allow:
            if not any(_covers(allowed, pattern) for allowed in granting.allow):
                raise PermissionDenied(pattern, hint="a key can grant no more than it has")
        return Scopes(allow=self.allow, deny=tuple(dict.fromkeys((*self.deny, *granting.deny))))

    def require_within(self, granting: Scopes) -> None:
        """Raise PermissionDenied for scopes with which somebody could do what one with `granting` may not."""
        self.within(granting)
        for pattern in granting.deny:
            is_denied = any(_covers(own, pattern) for own in self.deny)
            if not is_denied and any(_meet(own, pattern) for own in self.allow):
                raise PermissionDenied(pattern, hint="this key may do what yours is denied")

    def as_dict(self) -> dict[str, list[str]]:
        return {"allow": list(self.allow), "deny": list(self.deny)}


def checked(allow: Iterable[str], deny: Iterable[str] = ()) -> Scopes:
    """Scopes from what somebody wrote. Raises InvalidInput for names that mean nothing, with what may be meant."""
    allowed, denied = tuple(dict.fromkeys(allow)), tuple(dict.fromkeys(deny))
    for field, patterns in (("scopes.allow", allowed), ("scopes.deny", denied)):
        if len(patterns) > SCOPES_A_KEY_MAX:
            raise InvalidInput(field, f"are more than {SCOPES_A_KEY_MAX}")
        for pattern in patterns:
            _check(field, pattern)
    return Scopes(allow=allowed, deny=denied)


def _check(field: str, pattern: str) -> None:
    if len(pattern) > SCOPE_MAX_CHARS:
        raise InvalidInput(field, f"has a scope of more than {SCOPE_MAX_CHARS} characters")
    if not _means_something(pattern):
        near = difflib.get_close_matches(pattern, (*SCOPES, f"{INVOKE}*"), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SCOPES)}, {INVOKE}NAME"
        raise InvalidInput(field, f"{pattern!r} is no scope", hint=hint)


def _means_something(pattern: str) -> bool:
    stem = pattern.removesuffix("*")
    if "*" in stem:
        return False
    if stem.startswith(INVOKE):
        name = stem.removeprefix(INVOKE)
        return _NAME.fullmatch(name) is not None or (not name and pattern != stem)
    if pattern == stem:
        return pattern in SCOPES
    return any(scope.startswith(stem) for scope in (*SCOPES, INVOKE) if scope != ADMIN)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _meet(one: str, other: str) -> bool:
    """Whether there may be something that both patterns mean."""
    if ADMIN in {one, other}:
        return True
    begin, other_begin = one.removesuffix("*"), other.removesuffix("*")
    return _matches(one, other_begin) or _matches(other, begin)


def _covers(wider: str, narrower: str) -> bool:
    """Whether all that a pattern allows is allowed by another."""
    if wider in {ADMIN, "*", narrower}:
        return True
    return narrower != ADMIN and wider.endswith("*") and narrower.removesuffix("*").startswith(wider[:-1])
