"""What the service itself remembers, by name: JSON values, which no tenant sees."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from casemate.errors import Conflict, InvalidInput
from casemate.model.result import JsonValue
from casemate.service_limits import SETTING_MAX_BYTES, SETTINGS_MAX
from casemate.store.schema import settings as table


def get_setting(connection: Connection, name: str) -> JsonValue:
    """None if it was never put."""
    value: JsonValue = connection.execute(select(table.c.value).where(table.c.name == name)).scalar()
    return value


def put_setting(connection: Connection, name: str, value: JsonValue) -> None:
    """Remember a value in the place of what was there. Raises InvalidInput, and Conflict beyond SETTINGS_MAX."""
    if len(msgspec.json.encode(value)) > SETTING_MAX_BYTES:
        raise InvalidInput(name, f"has more than {SETTING_MAX_BYTES} bytes")
    if connection.execute(update(table).where(table.c.name == name).values(value=value)).rowcount:
        return
    if connection.execute(select(func.count()).select_from(table)).scalar_one() >= SETTINGS_MAX:
        raise Conflict(f"there are {SETTINGS_MAX} settings already")
    connection.execute(insert(table), {"name": name, "value": value})
