"""What workers used, from time to time: of it are made the curves that tell a leak from a load."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, insert, select

from casemate.errors import InvalidInput
from casemate.service_limits import SAMPLES_A_WRITE_MAX, SAMPLES_READ_MAX, SWEEP_MAX_COUNT
from casemate.store.schema import samples as table


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker used at a time, as far as it is known; ids are empty where it served nobody."""

    worker_id: str
    at_us: int
    node: str = ""
    runtime: str = ""
    tenant_id: str = ""
    execution_id: str = ""
    heap_used_bytes: int | None = None
    heap_total_bytes: int | None = None
    external_bytes: int | None = None
    malloced_bytes: int | None = None
    memory_bytes: int | None = None


def insert_samples(connection: Connection, samples: Sequence[Sample]) -> None:
    """Add many at once. Raises InvalidInput for too many."""
    if len(samples) > SAMPLES_A_WRITE_MAX:
        raise InvalidInput("samples", f"more than {SAMPLES_A_WRITE_MAX} at once")
    if samples:
        connection.execute(insert(table), [msgspec.structs.asdict(sample) for sample in samples])


def list_samples(
    connection: Connection, worker_id: str, *, since_us: int, until_us: int, limit: int = SAMPLES_READ_MAX
) -> tuple[Sample, ...]:
    """A worker's, `since_us` ≤ time < `until_us`, the first first; of more than `limit` the last ones."""
    columns = [table.c[name] for name in Sample.__struct_fields__]
    within = (table.c.worker_id == worker_id, table.c.at_us >= since_us, table.c.at_us < until_us)
    query = select(*columns).where(*within).order_by(table.c.at_us.desc(), table.c.id.desc())
    rows = connection.execute(query.limit(min(limit, SAMPLES_READ_MAX))).mappings().all()
    return tuple(Sample(**row) for row in reversed(rows))


def sweep(connection: Connection, *, before_us: int) -> int:
    """Delete some that were taken before that time, and say how many; 0: there are no more."""
    old = select(table.c.id).where(table.c.at_us < before_us).limit(SWEEP_MAX_COUNT)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount
