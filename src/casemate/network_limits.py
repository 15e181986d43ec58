"""The bounds of the way out of a sandbox, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.limits import GIB, KIB, MIB

# A policy ---------------------------------------------------------------------------------------------
POLICY_PATTERNS_MAX: Final = 1000
"""Hosts that one policy may name."""

POLICY_HEADERS_MAX: Final = 64
"""Headers that one policy may have stripped or injected."""

SECRET_MAX_CHARS: Final = 8192
POLICY_MAX_BYTES: Final = 96 * KIB
"""As it is handed to the gateway, with the values of its secrets."""

HOST_MAX_CHARS: Final = 253
BANDWIDTH_MIN_BYTES_PER_S: Final = 1024
BANDWIDTH_MAX_BYTES_PER_S: Final = 64 * GIB

# The process ------------------------------------------------------------------------------------------
START_TIMEOUT_S: Final = 20.0
"""From the start of the process to its first answer; importing what it needs takes most of it."""

STARTS_MAX: Final = 2
"""A process that has ended just when a sandbox was to be served is replaced by another one, once."""

REST_S: Final = 60.0
"""A process that has served nobody for so long ends; the next sandbox gets a new one."""

OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0
"""After that a gateway that does not answer is ended, and every way with it."""

MESSAGE_MAX_BYTES: Final = 128 * KIB
ANSWERS_WAITING_MAX: Final = 4096
"""Records of flows that wait for a parent that is busy; more are counted and thrown away. No sandbox has more of them
than there is room left for others."""

WAYS_MAX: Final = 4096
OPEN_FILES_MAX: Final = 262_144

# One sandbox ------------------------------------------------------------------------------------------
WAY_CONNECTIONS_MAX: Final = 1024
WAY_CONNECTING_MAX: Final = 128
"""Connections that have not been judged yet, or whose server has not answered: the costly kind."""

WAY_CONNECTIONS_PER_S: Final = 500.0
WAY_CONNECTIONS_BURST: Final = 1024
"""Connections beyond that wait to be accepted: one process serves all sandboxes, and every beginning costs it."""

WAY_REQUESTS_PER_S: Final = 1000.0
WAY_REQUESTS_BURST: Final = 1000
"""Requests of HTTP; those beyond wait."""

WAY_WAITING_MAX_BYTES: Final = 8 * MIB
"""What is read at once by all connections of a sandbox together, about: it waits here where a reader is slow."""

WAY_LOOKUPS_MAX: Final = 32
"""Names of one sandbox that are being looked up: whose servers do not answer keeps others from being asked."""

WAY_TOTAL_MAX_BYTES: Final = 256 * GIB
WAY_FLOWS_MAX: Final = 10_000
"""Records of one sandbox; more are counted alone."""

ACCEPTED_AT_ONCE: Final = 64
"""Then others have their turn."""

FLOWS_KEPT_MAX: Final = 1000
"""In one Result; further ones are counted alone."""

# One connection ---------------------------------------------------------------------------------------
HEAD_TIMEOUT_S: Final = 10.0
"""Until the first bytes say where a connection goes, and for the head of a request."""

SILENCE_S: Final = 0.3
"""Where any protocol is allowed, a client that says nothing for so long waits for its server to speak."""

CONNECT_TIMEOUT_S: Final = 10.0
CONNECT_ADDRESS_TIMEOUT_S: Final = 4.0
"""For one address of several."""

IDLE_TIMEOUT_S: Final = 600.0
HELLO_MAX_BYTES: Final = 32 * KIB
"""All records of a ClientHello together."""

HELLO_RECORDS_MAX: Final = 64
"""That it may be cut into: it is read anew with each."""

HEAD_MAX_BYTES: Final = 32 * KIB
HEADERS_MAX: Final = 128
BODY_AFTER_ANSWER_S: Final = 1.0
"""What is left of a request's body may take so long once the answer is there; then the connection ends."""

COPY_BYTES: Final = 256 * KIB
"""What is read at once. One buffer serves all connections."""

COPY_MIN_BYTES: Final = 4 * KIB
PACED_COPY_BYTES: Final = 32 * KIB
"""The same where a bandwidth is set: so that connections share it."""

# Names ------------------------------------------------------------------------------------------------
LOOKUP_TIMEOUT_S: Final = 5.0
LOOKUPS_MAX: Final = 256
"""Questions to the machine's own resolvers at one time, for all sandboxes."""

ADDRESSES_MAX: Final = 16
"""Of one name; further ones are ignored."""

NAMES_KEPT_MAX: Final = 4096
NAME_KEPT_MIN_S: Final = 5.0
NAME_KEPT_MAX_S: Final = 60.0
NAME_FAILED_KEPT_S: Final = 5.0
HOSTS_FILE_MAX_BYTES: Final = MIB

DNS_MESSAGE_MAX_BYTES: Final = 1232
"""Of a question; whoever may look up addresses needs far less."""

DNS_QUESTIONS_PER_S: Final = 200.0
DNS_QUESTIONS_BURST: Final = 1000
"""Of one sandbox, whatever is asked; those beyond are not read."""

DNS_WAITING_MAX: Final = 64
"""Questions of one sandbox that are being answered."""

DNS_TCP_QUESTIONS_MAX: Final = 64
"""Over one connection."""

DNS_NAMES_BURST: Final = 200
DNS_NAMES_PER_S: Final = 5.0
"""New names that one sandbox may have looked up: whoever controls a domain below an allowed suffix could carry data
out in them."""

DNS_BELOW_MAX_CHARS: Final = 100
"""What may stand in front of the suffix that a rule names."""

# Records of flows -------------------------------------------------------------------------------------
FLOW_RETENTION_DAYS: Final = 14
FLOW_RETENTION_MAX_DAYS: Final = 3650
FLOW_PROBLEM_MAX_CHARS: Final = 300
FLOW_WORD_MAX_CHARS: Final = 64
"""Of an address, a protocol or a reason."""

FLOWS_A_WRITE_MAX: Final = 500
FLOWS_WAITING_MAX: Final = 20_000
"""That are not written down yet; more are counted and thrown away. No tenant has more of them than there is room left
for others."""

FLOWS_GATHER_S: Final = 0.2
"""How long flows wait for others that are written down with them."""

FLOW_BYTES: Final = 512
"""What each that is kept counts for among what a tenant has in the records."""

FLOW_FOLLOWERS_MAX: Final = 100
FLOW_FOLLOWERS_A_TENANT_MAX: Final = 20
FLOW_SWEEP_MAX_COUNT: Final = 5000
