"""How much of the records is whose: results, sources, answers that are kept, logs and flows together have a bound.

What is written is added up as it comes, and counted anew now and then, when what was too old has been deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, func, select

from casemate.network_limits import FLOW_BYTES
from casemate.service_limits import STORED_A_TENANT_MAX_BYTES
from casemate.store.dialect import dialect_of
from casemate.store.schema import executions, flows, function_logs, function_versions, idempotency, job_log_pieces, jobs

_CONTENTS: Final = (
    executions.c.result,
    function_versions.c.source,
    idempotency.c.body,
    function_logs.c.text,
    job_log_pieces.c.data,
    jobs.c.spec,
    jobs.c.result,
)


class Stored:
    """Bytes of each tenant."""

    def __init__(self, most_bytes: int = STORED_A_TENANT_MAX_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes: dict[str, int] = {}

    def takes(self, tenant_id: str, count: int) -> bool:
        """Whether there is room for so much more, which then is taken."""
        held = self._bytes.get(tenant_id, 0) + count
        if held > self._most_bytes:
            return False
        self._bytes[tenant_id] = held
        return True

    def counted(self, found: Mapping[str, int]) -> None:
        """What there really is. What was taken while it was counted is forgotten until the next time."""
        self._bytes = dict(found)


def count_bytes(connection: Connection) -> dict[str, int]:
    """Of each tenant what there is now. Reads no content, only how long it is."""
    found: dict[str, int] = {}
    dialect_of(connection).take_time(connection)
    for content in _CONTENTS:
        owner = content.table.c.tenant_id
        query = select(owner, func.sum(func.length(content))).where(content.is_not(None)).group_by(owner)
        for tenant_id, count in connection.execute(query):
            found[tenant_id] = found.get(tenant_id, 0) + int(count or 0)
    for tenant_id, count in connection.execute(select(flows.c.tenant_id, func.count()).group_by(flows.c.tenant_id)):
        found[tenant_id] = found.get(tenant_id, 0) + FLOW_BYTES * int(count)
    return found
