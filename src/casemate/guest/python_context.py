"""The context of an item: what was found before, which a program can read like any JSON value and not change."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class ReadOnly(dict):  # type: ignore[type-arg]  # `json` and all others take it for what it is
    """A dictionary that says no."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the context is read-only")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _: Any) -> dict[str, Any]:
        thawed: dict[str, Any] = thaw(self)
        return thawed

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def freeze(value: Any) -> Any:
    """The same value: objects that cannot be changed, and tuples for arrays. Level by level, for it may be deep."""
    if isinstance(value, dict):
        return ReadOnly({key: freeze(each) for key, each in value.items()})
    return tuple(freeze(each) for each in value) if isinstance(value, list) else value


def thaw(value: Any) -> Any:
    """The opposite, for whoever wants a copy to change."""
    if isinstance(value, dict):
        return {key: thaw(each) for key, each in value.items()}
    return [thaw(each) for each in value] if isinstance(value, tuple) else value
