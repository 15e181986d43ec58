"""The bounds of jobs, their queue, their schedules and their logs, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.limits import GIB, KIB, MIB

# The queue -----------------------------------------------------------------------------------------
LEASE_S: Final = 30.0
"""How long a job stays with whoever has it, if nothing is heard from there; it is renewed three times as often."""

LOST_MAX: Final = 3
"""Attempts of one job of which nothing came back: after so many it is dead."""

BACKOFF_MAX_S: Final = 30.0
"""The longest time from a failure to the next attempt."""

BACKOFF_DOUBLINGS_MAX: Final = 32
CLAIMS_MAX: Final = 256
"""Jobs that one claim leases."""

DUE_MAX: Final = 500
"""Delayed jobs that one claim finds due. Others are found by the next."""

EXPIRED_MAX: Final = 500
"""Leases that one transaction takes back."""

QUEUE_LOOK_S: Final = 1.0
"""How often whoever waits for jobs looks for them, where nothing tells that there are any."""

QUEUE_RETRY_S: Final = 5.0
"""When to try again that was refused because too many jobs were waiting."""

TRANSITIONS_READ_MAX: Final = 1_000
SPECS_A_PAGE_MAX_BYTES: Final = 8 * MIB
"""Of a list of jobs; a page ends before it has more."""

# What one job may ask for --------------------------------------------------------------------------
JOB_CPU: Final = 0.5
JOB_MEMORY_BYTES: Final = 512 * MIB
JOB_DISK_BYTES: Final = 1 * GIB
JOB_TIMEOUT_S: Final = 300.0
"""Of a job that names none."""

JOB_OUTPUT_BYTES: Final = 1024 * GIB
"""What a job prints goes into a log that is bounded by itself."""

PROGRAMS_MAX: Final = 1000
"""Names of programs that are chosen for the base."""

COMMAND_MAX_CHARS: Final = 64 * KIB
WORDS_MAX: Final = 4096
SCANNED_MAX_CHARS: Final = 64 * KIB
"""Of a script that is looked through for dangerous operations: it is costly, and no wall."""

WORDS_SCANNED_MAX: Final = 512
WRAPPED_WORDS_MAX: Final = 16
"""Behind a command that runs another one, that may be where the other one begins."""

SPEC_IN_THREAD_MIN_CHARS: Final = 4 * KIB
"""Commands and code from that size on are looked at by a thread, so that nobody else waits for it."""

JOB_FILES_MAX: Final = 1000
JOB_STDIN_MAX_BYTES: Final = 1 * MIB
JOB_GLOBS_MAX: Final = 100
JOB_SECRETS_MAX: Final = 100
JOB_HOSTS_MAX: Final = 200
JOB_PORTS_MAX: Final = 200
JOB_HEADERS_MAX: Final = 20
JOB_SPEC_MAX_BYTES: Final = 256 * KIB
"""As it is kept with its row; files are kept elsewhere."""

RETRIES_MAX: Final = 100
BACKOFF_S: Final = 1.0
BACKOFF_WRITTEN_MAX_S: Final = 3600.0
JOB_CONCURRENCY_MAX: Final = 1024
JOBS_A_PROCESSOR: Final = 2
"""At a time, where nothing else is configured: each gets half of one."""

JOB_RETENTION_DAYS: Final = 30
JOB_RETENTION_MAX_DAYS: Final = 3650
LEASE_MIN_S: Final = 1.0
LEASE_MAX_S: Final = 3600.0
ALLOWED_COMMANDS_MAX: Final = 200
# Logs ---------------------------------------------------------------------------------------------

LOG_LINE_MAX_BYTES: Final = 16 * KIB
"""A longer line is kept in several parts."""

LOG_LINE_COST_BYTES: Final = 32
"""What a line counts beside its bytes: a program that prints nothing but ends of lines is bounded, too."""

LOG_KEPT_MAX_BYTES: Final = 16 * MIB
"""Of one job's log, unless `jobs.log_max` says something else: half of it from the beginning, half from the end."""

LOG_KEPT_LEAST_BYTES: Final = 64 * KIB
LOG_KEPT_MOST_BYTES: Final = 1 * GIB

LOG_PIECE_MAX_BYTES: Final = 256 * KIB
"""Of lines that are written down together, compressed as one."""

LOG_PENDING_MAX_BYTES: Final = 512 * KIB
"""Of one job's lines that wait to be written down, before its output waits."""

LOG_RING_MAX_BYTES: Final = 256 * KIB
"""Of output beyond what is kept from the beginning, that waits to become lines. What is older is left out."""

LOG_RING_PERIOD_S: Final = 0.25
"""How often that becomes lines: with the bound above, what a job that prints without end can cost."""

LOG_SLICE_BYTES: Final = 8 * KIB
"""Of output that becomes lines in one go, before anybody else has a turn."""

LOG_GROUP_MAX_COUNT: Final = 256
"""Of jobs whose lines are written down in one transaction."""

LOG_GATHER_MIN_S: Final = 0.02
LOG_GATHER_MAX_S: Final = 1.0
LOG_GATHER_SHARE: Final = 20
"""Lines that nobody follows are gathered for this part of the time since the attempt began, within these bounds."""

LOG_PARTIAL_S: Final = 0.25
"""After that the beginning of a line is told without its end."""

LOG_WRITE_TRIES: Final = 5
LOG_WRITE_PAUSE_S: Final = 1.0
"""Where the records take nothing: lines are left out after so many times."""

LOG_LOOK_S: Final = 0.5
"""How often a follower looks for what another process may have written down, and whether the job has ended."""

LOG_FOLLOWERS_MAX: Final = 1_000
LOG_LINES_A_READ_MAX: Final = 2_000
LOG_LINES_SHOWN_MAX: Final = 1_000
"""On a page of the dashboard."""

LOG_WORD_MAX_CHARS: Final = 64
LOG_QUERY_WORDS_MAX: Final = 16
LOG_QUERY_MAX_CHARS: Final = 1_000
LOG_PIECES_A_SEARCH_MAX: Final = 64
"""Of pieces that are looked into for one page; the page says how to go on."""

LOG_MOVE_PERIOD_S: Final = 10.0
LOG_MOVE_AFTER_S: Final = 10.0
"""A log to which nothing came for so long, and that nobody writes, is moved to the objects."""

LOG_MOVES_A_TURN_MAX: Final = 64
LOG_MOVES_AT_ONCE: Final = 8
LOG_SEGMENT_MAX_BYTES: Final = 512 * KIB
"""Of lines that are compressed as one when a log is moved."""

LOG_OBJECT_MAX_BYTES: Final = 2 * GIB
LOG_RETENTION_DAYS: Final = 7
LOG_RETENTION_MAX_DAYS: Final = 3_650
LOG_RULES_MAX: Final = 100
"""Of days for single runtimes and kinds."""

LOG_SWEEP_MAX_COUNT: Final = 200
LOG_SWEEP_PERIOD_S: Final = 600.0

# What is kept on a node for a run that is to come ----------------------------------------------------
PIECE_MAX_BYTES: Final = 1 * MIB
"""Of an input on its way to a node."""

STAGED_FILES_MAX: Final = 10_000
"""Of one run."""

STAGED_TOTAL_MAX_BYTES: Final = 64 * GIB
"""Of one run."""

STAGED_DEPTH_MAX: Final = 32
STAGED_RUNS_MAX: Final = 4096
STAGED_AGE_MAX_S: Final = 3600.0
"""What nobody has run or added to for so long is forgotten."""

SPOOL_FREE_MIN_BYTES: Final = 256 * MIB
"""So much of the node's disk is left to others."""

SPOOL_FREE_MIN_FILES: Final = 10_000
"""The same of the files that it can still take, where it says how many."""

STAGED_OVERHEAD_BYTES: Final = 4 * KIB
"""What each staged file counts for beside its size."""

SPOOL_TENANT_FREE_SHARE: Final = 1.0
"""A tenant's staged files may be so many times as large as what is still free of a node's disk, but no larger: whoever
takes all that it can leaves as much to the next."""

LINKS_MAX: Final = 128
"""So many inputs have a link in the work directory besides."""

LINKS_TOTAL_MAX_BYTES: Final = 16 * KIB

# What comes from a run -------------------------------------------------------------------------------
SAMPLE_PERIOD_S: Final = 1.0
OUTBOX_BYTES: Final = 1 * MIB
"""What a node keeps of one run for whoever takes it; when there is more the program waits."""

ANSWER_BYTES: Final = 512
"""What one counts for that is neither output nor of a file."""

OUTBOX_STALL_MAX_S: Final = 600.0
"""A run whose files nobody takes for so long is given up."""

COLLECT_PIECE_BYTES: Final = 256 * KIB
COLLECT_FILES_MAX: Final = 10_000
COLLECT_TIME_MAX_S: Final = 3600.0
"""With the time that whoever keeps them takes."""

# Carrying out --------------------------------------------------------------------------------------
STAGED_PIECE_BYTES: Final = 512 * KIB
"""How much of an input goes to the node at a time."""

STEP_NOTED_S: Final = 0.1
"""What an attempt does within that time is written with its end, if that comes; else then."""

PREPARED_AGAIN_MAX: Final = 5
"""How often an attempt is prepared again because the node ended before anything ran."""

STUCK_S: Final = 3600.0
"""How long an attempt may take beside its own time: for large files, and a mistake of ours."""

JOB_CANCEL_TIMEOUT_S: Final = 10.0
ENDS_RECORDED_MAX_S: Final = 10.0
"""How long a service that ends waits for the ends of attempts to be recorded; after that they are lost ones."""

CLAIM_PAUSE_S: Final = 1.0
"""Until the next try, after the records could not be read or written."""

KEPT_STREAM_BYTES: Final = 16 * KIB
"""Of the beginning and of the end of what a job printed, in its result; the log has more."""

# Schedules -----------------------------------------------------------------------------------------
SCHEDULES_A_TENANT_MAX: Final = 1_000
CRON_MAX_CHARS: Final = 200
SCHEDULE_NAME_MAX_CHARS: Final = 100
SCHEDULE_REFUSED_MAX_CHARS: Final = 500
"""Of why a schedule made no job."""

MISSED_AFTER_S: Final = 60.0
"""A time that is so long ago was missed; what comes sooner is merely late."""

SCHEDULES_LOOK_S: Final = 30.0
"""How often schedules are looked at, where nothing tells that one is due."""

SCHEDULES_A_LOOK_MAX: Final = 100

# Over HTTP -----------------------------------------------------------------------------------------
JOB_WAIT_MAX_S: Final = 60.0
EVENTS_LOOK_S: Final = 2.0
"""How often a job that is followed is looked at, where nothing here tells of changes."""

SEARCH_MAX_CHARS: Final = 500
