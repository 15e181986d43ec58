"""The bounds of the service, beside those of the engine, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.limits import *  # noqa: F403  (the service looks for all bounds here)
from casemate.limits import KIB, MEMORY_MAX_BYTES, MIB

# The service: what one request may be -----------------------------------------------------------------
REQUEST_ID_MAX_CHARS: Final = 128
REQUEST_PARSED_HERE_MAX_BYTES: Final = 256 * KIB
"""A larger body is parsed in a thread, so that other requests do not wait for it."""

IDEMPOTENCY_KEY_MAX_CHARS: Final = 255
IDEMPOTENCY_KEPT_S: Final = 24 * 3600.0
IDEMPOTENCY_BODY_MAX_BYTES: Final = 1 * MIB
"""A larger answer is not kept: whoever asks again is told so."""

PAGE_DEFAULT_COUNT: Final = 50
PAGE_MAX_COUNT: Final = 200
ID_MAX_CHARS: Final = 64
WORD_MAX_CHARS: Final = 32
"""Of a reason, or an amount as people write it."""

LAYERS_ASKED_MAX: Final = 32
GLOBALS_MAX: Final = 128
"""Names of globals that one execution may be left with."""
LABELS_MAX: Final = 32
LABEL_MAX_CHARS: Final = 128
PRIORITY_MAX: Final = 9
PRIORITY_DEFAULT: Final = 5
EVENT_DATA_MAX_BYTES: Final = 64 * KIB
EVENT_PING_S: Final = 15.0
"""A stream that has nothing to say says so, so that nothing between takes it for dead."""

# The service: executions ------------------------------------------------------------------------------
NODE_WAIT_MAX_S: Final = 10.0
"""For a node that is being started again; then what needs one is refused."""

START_NOTED_S: Final = 0.1
"""What has ended by then is written once: as ended, with the time at which it began."""
ENDED_KEPT_S: Final = 30.0
"""How long an execution that has ended is still followed from memory."""
ENDED_KEPT_MAX_BYTES: Final = 128 * MIB
"""Of all that have ended; beyond that they are followed from the records, too."""

ENDED_OVERHEAD_BYTES: Final = 16 * KIB
RESULT_STORED_MAX_BYTES: Final = 16 * MIB
"""Of one Result's document in the records; one with files may be larger on its way to whoever waits for it."""

CANCEL_TIMEOUT_S: Final = 5.0
"""How long a node has for the Result of what was cancelled."""
SPEC_STORED_MAX_BYTES: Final = 64 * KIB
FOLLOWER_GRACE_S: Final = 10.0
"""A streaming client that is cut off has so long to come back before its run is cancelled."""

# The service: connections -----------------------------------------------------------------------------
KEEP_ALIVE_S: Final = 30
HEAD_MAX_BYTES: Final = 64 * KIB
"""Of a request's line and headers, and of what stands between the pieces of a body."""

HEAD_TIMEOUT_S: Final = 10.0
"""From the beginning of a connection, or of a request, to the end of its headers."""

BODY_TIMEOUT_S: Final = 120.0
"""From there to the end of its body."""

TAKING_TIMEOUT_S: Final = 30.0
TAKEN_MIN_BYTES: Final = 256 * KIB
"""So much of an answer that waits must be taken within TAKING_TIMEOUT_S."""

STREAMS_END_S: Final = 3
"""How long streams and slow requests have when the service ends; then they are cut off."""
CONNECTIONS_MAX: Final = 2048
REQUESTS_A_TENANT_MAX: Final = 1024
"""Under way at a time, streams that are followed among them: the other connections are for other tenants."""

BODIES_A_TENANT_MAX_BYTES: Final = 256 * MIB
"""Bodies of requests under way, as far as they have come; at least one of the largest."""

BODIES_SHARES: Final = 4
"""So many times that is for all tenants together."""

REQUESTS_HELD_A_TENANT_MAX_BYTES: Final = 256 * MIB
REQUESTS_HELD_MAX_BYTES: Final = 1024 * MIB
"""Code, input and files of executions that have not ended."""

BACKLOG: Final = 2048
UPKEEP_PERIOD_S: Final = 60.0

# Between the service and its node ----------------------------------------------------------------------
FRAME_MAX_BYTES: Final = 320 * MIB
"""One question or answer. The largest is a Result: its output, its streams and displays, and all collected files."""

CALL_WINDOW_BYTES: Final = 4 * MIB
"""Answers of one call that are under way and not taken yet; then live output is dropped and the rest waits."""

CALL_TAKEN_STEP_BYTES: Final = 256 * KIB
"""How much of a call is taken before the node is told."""

CALL_ID_MAX_CHARS: Final = 128
NODE_CONNECTIONS_MAX: Final = 8
NODE_CALLS_MAX: Final = 4096
"""Under way at a time on one node. What queues, queues in the service; this only bounds a mistake."""

NODE_CONNECT_TIMEOUT_S: Final = 5.0
NODE_RETRY_MIN_S: Final = 0.02
NODE_RETRY_MAX_S: Final = 1.0
NODE_CLOSE_TIMEOUT_S: Final = 5.0

# The service's processes ---------------------------------------------------------------------------------
RESTART_MIN_S: Final = 0.1
RESTART_MAX_S: Final = 5.0
CRASHES_MAX: Final = 8
"""Of one process within CRASHES_WITHIN_S; then the service ends and says so."""

CRASHES_WITHIN_S: Final = 60.0
CHILD_END_TIMEOUT_S: Final = 5.0
"""How long the node may take to end after SIGTERM, and the API beyond `drain`; then it is killed."""

ANNOUNCEMENT_MAX_BYTES: Final = 64 * KIB
LISTEN_BACKLOG: Final = 1024
SERVICE_DRAIN_S: Final = 10.0
SERVICE_DRAIN_MAX_S: Final = 3600.0
SERVICE_PORT: Final = 8700
SERVICE_CONCURRENCY_MAX: Final = 1024
SERVICE_QUEUE: Final = 1000
SERVICE_QUEUE_MAX: Final = 100_000
SERVICE_REQUEST_BYTES: Final = 32 * MIB
SERVICE_REQUEST_MAX_BYTES: Final = 256 * MIB
SERVICE_RATE_PER_S: Final = 10.0
SERVICE_BURST: Final = 20
SERVICE_RATE_MAX_PER_S: Final = 1_000_000.0
SERVICE_RETENTION_DAYS: Final = 7
SERVICE_RETENTION_MAX_DAYS: Final = 3650
SERVICE_PATTERNS_MAX: Final = 200
SERVICE_PATTERN_MAX_CHARS: Final = 500
SERVICE_PROXIES_MAX: Final = 50
SERVICE_TAGS_MAX: Final = 50
SERVICE_TAG_MAX_CHARS: Final = 256
SERVICE_NAME_MAX_CHARS: Final = 63
LANGUAGE_MEMORY_MAX_MB: Final = MEMORY_MAX_BYTES // MIB

# Records: what the database takes and keeps --------------------------------------------------------
RECORDS_BUSY_TIMEOUT_S: Final = 5.0
"""How long another process may hold the database before ours gives up for the moment."""

RECORDS_CONNECT_TIMEOUT_S: Final = 5
"""How long a connection to PostgreSQL may take to open; libpq counts whole seconds."""

LISTEN_LOOK_S: Final = 0.25
"""How soon a thread that waits for notices sees that it is to end."""

LISTEN_AGAIN_S: Final = 1.0
"""From the loss of the connection that brings notices to the next attempt at one."""

RECORDS_LOG_MAX_BYTES: Final = 64 * MIB
"""To what the write-ahead log is cut when it has been written back."""

WRITES_WAITING_MAX: Final = 10_000
POSTS_WAITING_MAX: Final = 500
"""With more writes waiting, those that nobody waits for are left out: what functions print, samples of workers."""

WRITES_A_TRANSACTION_MAX: Final = 256
WRITE_TRANSACTION_MAX_S: Final = 0.05
"""After that a transaction takes no further write: the first in it is waiting."""

READERS: Final = 4
READ_MAX_S: Final = 5.0
"""Of one read: few read at a time, and a search through all that a tenant has would keep the others waiting."""

READ_LOOK_STEPS: Final = 20_000
"""Of the database's machine between two looks at the clock: some milliseconds."""

READS_WAITING_MAX: Final = 1_000
RECORDS_CLOSE_TIMEOUT_S: Final = 30.0
SWEEP_MAX_COUNT: Final = 500
"""Of rows that one write deletes, so that others are not kept waiting."""

CURSOR_MAX_CHARS: Final = 200
STORED_A_TENANT_MAX_BYTES: Final = 8192 * MIB
"""Results, sources, kept answers and logs of one tenant. Beyond that executions are recorded without their output."""

STORED_RECOUNT_S: Final = 600.0
STATISTICS_ROWS_MAX: Final = 100_000
SAMPLES_READ_MAX: Final = 10_000
FUNCTION_LOG_TEXT_MAX_CHARS: Final = 64 * KIB
FUNCTION_VERSIONS_MAX: Final = 10_000
FUNCTIONS_A_TENANT_MAX: Final = 10_000
ALIASES_A_FUNCTION_MAX: Final = 100
ALIAS_MOVES_KEPT_MAX: Final = 200
"""Of one alias; so far back can it be rolled back."""

FUNCTIONS_DELETED_KEPT_MAX: Final = 10_000
"""Names of a tenant whose numbers stay taken though the functions are gone."""

SOURCES_A_PAGE_MAX_BYTES: Final = 8 * MIB
LOG_A_CALL_MAX_BYTES: Final = 1 * MIB
"""Of what the items of one call print, that is kept in the log."""

LOG_LINES_A_WRITE_MAX: Final = 10_000
SAMPLES_A_WRITE_MAX: Final = 10_000
SETTINGS_MAX: Final = 1_000
SETTING_MAX_BYTES: Final = 64 * KIB

# Tenants and keys ------------------------------------------------------------------------------
TENANT_NAME_MAX_CHARS: Final = 64
KEY_NAME_MAX_CHARS: Final = 100
TENANT_CONCURRENCY_DEFAULT: Final = 16
TENANT_CONCURRENCY_MAX: Final = 10_000
TENANT_QUEUE_DEFAULT: Final = 1_000
TENANT_QUEUE_MAX: Final = 100_000
KEYS_A_TENANT_MAX: Final = 1_000
KEY_RATE_DEFAULT_PER_S: Final = 10.0
KEY_RATE_MAX_PER_S: Final = 1_000_000.0
KEY_BURST_DEFAULT: Final = 20
KEY_BURST_MAX: Final = 1_000_000
KEY_LIFE_MAX_S: Final = 100 * 365 * 24 * 3600.0
KEY_GRACE_MAX_S: Final = 30 * 24 * 3600.0
"""How long a key may go on that has been replaced by another."""

KEYS_CACHED_MAX: Final = 10_000
KEY_CACHED_S: Final = 5.0
"""How long a key that another process has revoked may go on; those revoked in this one end at once."""

KEY_USE_NOTED_S: Final = 60.0
"""How exact the time is at which a key was last used."""

RATE_BUCKETS_MAX: Final = 10_000
SCOPES_A_KEY_MAX: Final = 64
SCOPE_MAX_CHARS: Final = 200

# Whose turn it is ------------------------------------------------------------------------------
PRIORITY_MIN: Final = 0
TURNS_WAITING_MAX: Final = 10_000
TURNS_SPARE_DIVISOR: Final = 2
"""One turn more for so many, which only those get who have none while all others are taken."""

TURN_TYPICAL_S: Final = 0.1
"""How long a turn takes, before any has been seen."""

TURN_RETRY_MIN_S: Final = 1.0
TURN_RETRY_MAX_S: Final = 60.0

# The dashboard -----------------------------------------------------------------------------------------
SESSIONS_MAX: Final = 4096
SESSIONS_A_KEY_MAX: Final = 32
SESSION_LIFE_S: Final = 12 * 3600.0
SESSION_IDLE_S: Final = 2 * 3600.0
SESSION_CHECKED_S: Final = 1.0
"""How often a page that is being followed asks whether its key still is one."""

LOGIN_RATE_PER_S: Final = 0.2
LOGIN_BURST: Final = 10
"""Attempts of one address; then one every five seconds."""

FORM_FIELDS_MAX: Final = 64
FORM_MAX_BYTES: Final = 4 * MIB
"""A form with a program of a megabyte, of which every character may take three."""

PAGE_TEXT_MAX_CHARS: Final = 64 * KIB
"""Of one text of a program's, on a page; the API has all of it."""

PAGE_LABEL_MAX_CHARS: Final = 200
PAGE_ROWS: Final = 50
LIVE_PAUSE_S: Final = 0.25
"""From a change of a list to a look at it, so that many changes are one look."""

LIVE_LIST_S: Final = 10.0
"""From one look at a list to the next, where nothing says that it has changed."""

LIVE_WORKERS_S: Final = 2.0
LIVE_JOBS_S: Final = 2.0
LIVE_JOB_S: Final = 1.0
LIVE_STREAMS_A_SESSION_MAX: Final = 16
CHART_POINTS: Final = 60
CHART_RANGE_MAX_S: Final = 7 * 24 * 3600
ANSWER_MAX_BYTES: Final = 64 * MIB
"""Of what the API answers a page."""

# Functions ------------------------------------------------------------------------------------------
FUNCTION_NAME_MAX_CHARS: Final = 255
ALIAS_NAME_MAX_CHARS: Final = 64
VERSION_NUMBER_MAX: Final = 2**31 - 1
ITEM_ID_MAX_CHARS: Final = 1024
RUNNER_SCRIPT_MAX_BYTES: Final = 1 * MIB
RUNNER_ITEMS_MAX: Final = 1000
RUNNER_TIMEOUT_DEFAULT_S: Final = 10.0
RUNNER_TIMEOUT_MIN_S: Final = 10.0
RUNNER_TIMEOUT_MAX_S: Final = 60.0
RUNNER_OUTPUT_MAX_BYTES: Final = 10 * MIB
RUNNER_UNPACKED_MAX_BYTES: Final = 50 * MIB
BATCH_ITEMS_MAX: Final = 5000
BATCH_TIMEOUT_DEFAULT_S: Final = 30.0
BATCH_TIMEOUT_MIN_S: Final = 1.0
BATCH_TIMEOUT_MAX_S: Final = 60.0
WEBHOOK_CLOCK_MAX_S: Final = 300.0
"""How far the time of a signed request may be from ours, either way."""

SCHEMA_MAX_BYTES: Final = 64 * KIB
SCHEMA_DEPTH_MAX: Final = 32
SCHEMA_EXPANDED_MAX: Final = 10_000
"""Objects, arrays and values, with each reference replaced by what it refers to."""

SCHEMA_CHECK_MAX: Final = 100_000_000
"""What the checks of one call may come to: the schema's size, expanded, times the bytes that are checked.

In the worst case that takes a second, in which nobody else is served.
"""

SCHEMA_PROBLEMS_MAX: Final = 10
SCHEMA_PROBLEM_MAX_CHARS: Final = 300
SCHEMA_PATTERN_MAX_BYTES: Final = 1 * MIB
"""Compiled: counted repetitions can make much of a short pattern."""
DIFF_LINE_PAIRS_MAX: Final = 250_000
"""Lines that differ in one version times those in the other; with more they are not compared one by one."""

FUNCTIONS_REMEMBERED_MAX: Final = 1024
"""Versions that are kept in memory, compiled schemas and all."""

ITEM_OUTPUT_STORED_MAX_BYTES: Final = 64 * KIB
"""Of one call's output in the records; whoever calls gets all of it."""
BATCH_REPLY_MAX_BYTES: Final = 50 * MIB
BATCH_WAITING_MAX_BYTES: Final = 64 * MIB
"""Outputs of one call that wait because an item before theirs has not ended."""

BATCH_FUNCTIONS_AT_ONCE: Final = 8
"""Functions of one batch that are looked up and called at the same time."""

# The client of the service ----------------------------------------------------------------------------
SDK_CONNECT_TIMEOUT_S: Final = 10.0
SDK_SILENCE_MAX_S: Final = 60.0
"""Without a byte from the service, which says something at least every `EVENT_PING_S` where it has a stream."""

SDK_WAIT_MAX_S: Final = 900.0
"""For an answer that comes when something has run."""

SDK_ATTEMPTS_MAX: Final = 5
"""Of one request, the first included; a stream that has gone on since has as many again."""

SDK_PAUSE_FIRST_S: Final = 0.1
SDK_PAUSE_MAX_S: Final = 10.0
SDK_RETRY_AFTER_MAX_S: Final = 60.0
"""A service that asks for more patience is not waited for: whoever called is told."""

SDK_CONNECTIONS_MAX: Final = 100
SDK_ANSWER_MAX_BYTES: Final = 512 * MIB
"""Of one answer, or one event of a stream: it may carry the files of a Result in base64."""

SDK_PROBLEM_MAX_BYTES: Final = 256 * KIB
SDK_TEXT_MAX_CHARS: Final = 4000
SDK_BATCH_ITEMS_MAX: Final = 5000
"""Items of one request; more of them are sent in several."""

SDK_BATCH_BODY_MAX_BYTES: Final = 16 * MIB
SDK_UPLOAD_PART_BYTES: Final = 8 * MIB
"""Of an object that is sent: so much of it is in memory, and is sent again when it is lost."""

SDK_KEY_FILE_MAX_BYTES: Final = 4 * KIB
