"""Who asks, and who they are: tenants and their keys, over the records."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Connection

from casemate.errors import Conflict, InvalidInput, RecordsUnavailable, TooManyRequests, Unauthenticated
from casemate.limits import (
    KEY_BURST_DEFAULT,
    KEY_BURST_MAX,
    KEY_CACHED_S,
    KEY_LIFE_MAX_S,
    KEY_NAME_MAX_CHARS,
    KEY_RATE_DEFAULT_PER_S,
    KEY_RATE_MAX_PER_S,
    KEY_USE_NOTED_S,
    KEYS_CACHED_MAX,
    LABEL_NAME_MAX_CHARS,
    LABEL_VALUE_MAX_CHARS,
    LABELS_MAX,
    PAGE_DEFAULT_COUNT,
    TENANT_CONCURRENCY_DEFAULT,
    TENANT_CONCURRENCY_MAX,
    TENANT_NAME_MAX_CHARS,
    TENANT_QUEUE_DEFAULT,
    TENANT_QUEUE_MAX,
)
