"""What is kept beside the records: objects, secrets, and the log of who has done what."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from casemate.blobs.envelope import open_keys
from casemate.blobs.looking import Looking
from casemate.blobs.objects import Objects
from casemate.blobs.opening import needs_keys, open_blobs
from casemate.blobs.protocol import Blobs
from casemate.blobs.uploads import Uploads
from casemate.jobs.objects import ObjectsOfJobs
from casemate.object_config import ObjectsTerms
from casemate.store import secrets
from casemate.store.database import Database
from casemate.tenancy.addresses import Addresses
from casemate.tenancy.audit import AuditLog, open_audit
from casemate.tenancy.secrets import Signing
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.vault import Vault


class Storage(msgspec.Struct, kw_only=True):
    """Its parts. `job_objects`, `vault` and `audit` are what jobs need of it (`jobs.ports`)."""

    blobs: Blobs
    looking: Looking
    objects: Objects
    job_objects: ObjectsOfJobs
    addresses: Addresses
    uploads: Uploads
    vault: Vault
    audit: AuditLog


async def open_storage(
    terms: ObjectsTerms, data: Path, database: Database, signing: Signing, tenancy: Tenancy
) -> Storage:
    """For the one process that answers requests. Raises ConfigError."""
    is_needed = needs_keys(data) or await database.read(secrets.is_any)
    keys = open_keys(data, os.environ, is_needed=is_needed)
    blobs = await asyncio.to_thread(open_blobs, terms, data, keys, os.environ)
    audit = open_audit(database, data)
    await audit.begin()
    objects = Objects(blobs, terms)
    addresses = Addresses(signing, tenancy, life_max_s=terms.address_life_max_s)
    return Storage(
        blobs=blobs,
        looking=Looking(blobs),
        objects=objects,
        job_objects=ObjectsOfJobs(objects, addresses),
        addresses=addresses,
        uploads=Uploads(objects),
        vault=Vault(database, keys),
        audit=audit,
    )
