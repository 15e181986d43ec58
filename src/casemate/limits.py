"""Every bound of the system, as a named constant with its unit last.

Defaults are what a run gets when it asks for nothing; `*_MAX` is the most that it may ask for.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# What one run may use -------------------------------------------------------------------------
WALL_DEFAULT_S: Final = 30.0
WALL_MIN_S: Final = 0.001
WALL_MAX_S: Final = 7 * 24 * 3600.0
CPU_TIME_MAX_S: Final = 7 * 24 * 3600.0
CPUS_DEFAULT: Final = 1.0
CPUS_MIN: Final = 0.01
CPUS_MAX: Final = 1024.0
MEMORY_DEFAULT_BYTES: Final = 512 * MIB
MEMORY_MIN_BYTES: Final = 4 * MIB
MEMORY_MAX_BYTES: Final = 1024 * GIB
PROCESSES_DEFAULT: Final = 64
PROCESSES_MAX: Final = 32_768
DISK_DEFAULT_BYTES: Final = 256 * MIB
DISK_MIN_BYTES: Final = 64 * KIB
DISK_MAX_BYTES: Final = 1024 * GIB
INODES_DEFAULT: Final = 16_384
INODES_MIN: Final = 64
INODES_MAX: Final = 16_000_000
OPEN_FILES_DEFAULT: Final = 1024
OPEN_FILES_MIN: Final = 64
OPEN_FILES_MAX: Final = 1_048_576
OUTPUT_DEFAULT_BYTES: Final = 16 * MIB
OUTPUT_MAX_BYTES: Final = 1024 * GIB
TERMINALS_MAX: Final = 64
"""For one sandbox; the machine has a few thousand for all."""

# What is kept of what a run says --------------------------------------------------------------
CAPTURE_HEAD_BYTES: Final = 512 * KIB
CAPTURE_TAIL_BYTES: Final = 512 * KIB
READ_CHUNK_BYTES: Final = 64 * KIB
DRAIN_MAX_BYTES: Final = 4 * MIB
DRAIN_READS_MAX: Final = 1024
"""For each stream; the kernel keeps at most a few hundred pieces in a pipe."""
VALUE_MAX_BYTES: Final = 10 * MIB
VALUE_DEPTH_MAX: Final = 200
VALUE_CONTAINERS_MAX: Final = 500_000
ERROR_TEXT_MAX_CHARS: Final = 16_384
LAST_WORDS_BYTES: Final = 16 * KIB
"""Of stderr, where a program that was refused memory says so."""

EVENTS_MAX: Final = 64

# When a failing program is said to have failed for want of disk space ------------------------------
DISK_FULL_SLACK_BYTES: Final = 8 * KIB
DISK_FULL_SLACK_INODES: Final = 2

# What a caller may hand in --------------------------------------------------------------------
CODE_MAX_BYTES: Final = 1 * MIB
INPUT_MAX_BYTES: Final = 10 * MIB
ARGS_MAX: Final = 4096
ENV_MAX: Final = 1024
ARGV_TOTAL_MAX_BYTES: Final = 96 * KIB
ENV_TOTAL_MAX_BYTES: Final = 32 * KIB
FILES_MAX: Final = 1000
FILE_NAME_MAX_BYTES: Final = 255
PATH_MAX_BYTES: Final = 4095

FUNCTION_NAME_MAX_BYTES: Final = 256

# Code that is looked at before it is run ------------------------------------------------------------
PATTERNS_COMPILED_MAX: Final = 1024
CHANGES_MAX: Final = 1000
"""So many changes of a sanitised program are told one by one."""

# What is collected afterwards -----------------------------------------------------------------
COLLECT_FILES_MAX: Final = 1000
COLLECT_DEPTH_MAX: Final = 32
COLLECT_ENTRIES_MAX: Final = 100_000
COLLECT_TOTAL_MAX_BYTES: Final = 256 * MIB
COLLECT_TIME_MAX_S: Final = 10.0

# How long we wait -----------------------------------------------------------------------------
LAUNCH_TIMEOUT_S: Final = 20.0
LAUNCH_RETRY_S: Final = 0.1
REQUEST_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_S: Final = 10.0
KILL_SOON_S: Final = 1.0
"""After that everything in the sandbox is killed one by one, so that it leaves its init the processor to end on."""
DYING_S: Final = 0.25
BURIALS_WAITING_MAX: Final = 32
"""Killed sandboxes that one engine takes apart beside its other work."""
HANG_UP_TIMEOUT_S: Final = 1.0
TURN_MAX_S: Final = 0.005
"""How long work on an event loop goes on before it lets the others go first."""
SUPERVISE_PERIOD_S: Final = 0.1
SUPERVISE_PERIOD_MIN_S: Final = 0.002
WITHOUT_CGROUP_PERIOD_S: Final = 0.02
THROTTLE_DEBT_S: Final = 0.03
"""How far ahead of its processor share a sandbox without a control group may run before it is stopped."""
CLOSER_LOOK_PAUSE_RATIO: Final = 4
"""Without a control group: exact measuring of memory rests for so many times as long as it last took."""

# The launch plan ------------------------------------------------------------------------------
PLAN_MAX_BYTES: Final = 96 * KIB
PLAN_STEPS_MAX: Final = 512
PLANS_CACHED_MAX: Final = 64
STEPS_CACHED_MAX: Final = 1024
MESSAGE_MAX_BYTES: Final = 160 * KIB
REPORT_FDS_MAX: Final = 8

# What every sandbox has besides, whatever a run asks for ------------------------------------------
ROOT_SIZE_BYTES: Final = 4 * MIB
ROOT_INODES: Final = 2048
DEVICES_SIZE_BYTES: Final = 4 * KIB
DEVICES_INODES: Final = 32
STACK_SOFT_BYTES: Final = 8 * MIB
STACK_HARD_BYTES: Final = 64 * MIB
PENDING_SIGNALS_MAX: Final = 1024
PROCESSES_SLACK: Final = 64
"""With a cgroup the process limit is its; the per-user limit stands a little higher, as a second wall."""
CPUINFO_FULL_MAX: Final = 2
CPUINFO_LISTED_MAX: Final = 256
TERMINAL_SIDE_MAX_CHARS: Final = 4096
"""Rows or columns."""

# Host ids that runs get when the engine is root: above systemd's container range, below 2**31 --
UID_RANGE_START: Final = 1_900_000_000
UID_RANGE_COUNT: Final = 65_536
UID_BLOCK_COUNT: Final = 256

# Ready sandboxes ------------------------------------------------------------------------------
NURSERY_MEMORY_BYTES: Final = 512 * MIB
"""Of a zygote with all that it has imported."""
NURSERY_PROCESSES: Final = 64
NURSERY_DISK_BYTES: Final = 16 * MIB
INOTIFY_INSTANCES_MAX: Final = 32
"""For one sandbox, as in native/casemate.h."""
TRIED_REPORTS_MAX: Final = 512
"""Looked at in one go: more than a socket holds."""
NURSERY_INOTIFY_INSTANCES: Final = 8192
"""For all sandboxes made in it together; each has a limit of its own."""
NURSERY_NAMESPACES: Final = 1024
"""Of each kind, for all users in it together: some hundred KiB of memory each that no cgroup counts."""
ZYGOTE_START_TIMEOUT_S: Final = 30.0
ZYGOTE_CHILDREN_MAX: Final = 1000
ZYGOTE_FORKS_MAX: Final = 30
"""At a time: they share what the kernel counts for the nursery's user."""
ZYGOTE_AGE_MAX_S: Final = 600.0
"""A zygote's children share its address layout and hash seed: neither is to last."""
ZYGOTE_WORDS_MAX: Final = 200
ZYGOTES_MAX: Final = 4
"""Kinds of zygotes alive at a time."""
POOL_READY_MAX: Final = 8
POOL_MEMORY_BYTES: Final = 512 * MIB
POOL_MEMORY_GUESS_BYTES: Final = 16 * MIB
POOL_IDLE_S: Final = 60.0
POOL_FIRST_TAKES: Final = 2
POOL_HORIZON_S: Final = 0.1
POOL_KEPT_MAX: Final = 256
POOL_POLITE_S: Final = 0.02
"""A run that is the only one may take that long before things are made ahead beside it, in the same interpreter."""
POOL_AGE_MAX_S: Final = 600.0
POOL_TAKES_REMEMBERED: Final = 256
POOL_KINDS_MAX: Final = 32
POOL_THREADS: Final = 2
REQUEST_WAITED_FOR_MIN_BYTES: Final = 5 * KIB
"""More than an interpreter takes of a pipe at once before it looks at it: a page."""
POOL_RETRY_MIN_S: Final = 0.5
POOL_RETRY_MAX_S: Final = 60.0

# What an engine tells of its pools to other processes of its user -----------------------------------
PUBLISHED_ENGINES_MAX: Final = 64
PUBLISHED_ENTRIES_MAX: Final = 4096
PUBLISHED_MAX_BYTES: Final = 256 * KIB
PUBLISHED_TEXT_MAX_CHARS: Final = 500
PUBLISHED_TIMEOUT_S: Final = 1.0
PUBLISHED_ALL_TIMEOUT_S: Final = 5.0
PUBLISHED_RETRY_S: Final = 1.0
"""How long an engine that has no descriptor left for an answer waits before it looks again."""

# Control groups -------------------------------------------------------------------------------
CGROUP_REMOVE_TIMEOUT_S: Final = 5.0
CGROUP_RETRY_MIN_S: Final = 0.0005
CGROUP_RETRY_MAX_S: Final = 0.05
CGROUP_STUCK_MAX: Final = 64
CGROUP_KILL_BATCH_COUNT: Final = 128
CGROUP_FILE_MAX_BYTES: Final = 4 * MIB
CGROUP_COUNTER_MAX_BYTES: Final = 8 * KIB
CGROUP_ENGINES_MAX: Final = 64
CGROUP_WAKE_AGAIN_S: Final = 0.006
"""Less than the shortest grace period of the kernel, after which its lock would be asleep again."""

CGROUP_WAKES_MAX: Final = 64
"""Whoever has not come to a sandbox by then waits as anybody does."""

CPU_PERIOD_US: Final = 100_000
CPU_PERIOD_MAX_US: Final = 1_000_000
CPU_QUOTA_MIN_US: Final = 1_000
SANDBOX_INIT_PROCESSES: Final = 1
SOCKET_BUFFERS_PART: Final = 8
"""Version 1 counts them apart: buffers of TCP and UDP may hold the memory limit divided by this, on top of it."""
SOCKET_BUFFERS_MIN_BYTES: Final = 1 * MIB

CGROUP_MOVE_PASSES_MAX: Final = 3
"""How often an engine looks for processes of its own that have to leave its group."""

# Clearing up after a dead engine ----------------------------------------------------------------
REAP_TIME_MAX_S: Final = 2.0
REAP_DIRECTORIES_MAX: Final = 10_000
REAP_DEPTH_MAX: Final = 16

# Package sets ---------------------------------------------------------------------------------
SET_WALL_DEFAULT_S: Final = 1800.0
SET_MEMORY_DEFAULT_BYTES: Final = 4 * GIB
SET_DISK_DEFAULT_BYTES: Final = 3 * GIB
SET_PROCESSES_DEFAULT: Final = 256
SET_INODES_DEFAULT: Final = 500_000
SET_FILES_MAX: Final = 200_000
SET_DEPTH_MAX: Final = 64
SET_PACKAGES_MAX: Final = 200
SET_NAME_MAX_CHARS: Final = 64
SET_PRELOAD_MAX: Final = 100
SET_LOCK_MAX_BYTES: Final = 16 * MIB
SET_LEFT_OUT_MAX: Final = 100
SET_FILE_MAX_BYTES: Final = 4 * MIB
SET_LOG_MAX_CHARS: Final = 4000
SET_FLOWS_MAX: Final = 1000
SET_CLIENT_TIMEOUT_S: Final = 60.0

# Watching processes through /proc ---------------------------------------------------------------
WATCH_PROCESSES_MAX: Final = PROCESSES_MAX + 1_024
WATCH_TASKS_MAX: Final = 2 * PROCESSES_MAX
PROC_FILE_MAX_BYTES: Final = 1 * MIB
COMMAND_LINE_MAX_CHARS: Final = 200

# Reading the machine and its configuration --------------------------------------------------------
CONFIG_MAX_BYTES: Final = 1 * MIB
SETTING_FILE_MAX_BYTES: Final = 64 * KIB
VERSION_TEXT_MAX_CHARS: Final = 100

# At a terminal --------------------------------------------------------------------------------
TYPED_AHEAD_MAX_BYTES: Final = 64 * KIB
# Isolates: their heaps, and the workers that they are made in ---------------------------------------
ISOLATE_HEAP_DEFAULT_BYTES: Final = 16 * MIB
ISOLATE_HEAP_MIN_BYTES: Final = 8 * MIB
ISOLATE_HEAP_MAX_BYTES: Final = 4 * GIB

WORKER_BASE_BYTES: Final = 192 * MIB
"""What a worker may use beside the heap of an isolate; most of it never is used."""

WORKER_HEAP_FACTOR: Final = 4
"""A heap limit is kept by the garbage collector, which may notice late; then this much is the end."""

WORKER_PROCESSES: Final = 64
WORKER_START_TIMEOUT_S: Final = 10.0
WORKER_HANDOVER_TIMEOUT_S: Final = 3.0
WORKER_SILENCE_MAX_S: Final = 3.0
"""A busy worker gives a sign of life every half second."""

WORKER_IDLE_MAX_S: Final = 30.0
WORKER_PREPARES_S: Final = 0.005
"""How long a worker that has answered makes the next isolate, and whoever comes meanwhile waits for that."""

WORKER_AGE_MAX_S: Final = 900.0
WORKER_RUNS_MAX: Final = 2000
WORKER_SAMPLE_RUNS: Final = 50
"""How many executions there are from one sample of a worker's memory to the next."""

LEAK_SAMPLES: Final = 10
LEAK_RISES_MAX: Final = 8
WORKERS_PER_PROCESSOR: Final = 2
WORKERS_MAX: Final = 64
WORKERS_MEMORY_SHARE: Final = 0.5
"""Of the machine's memory, counting for each worker what it usually has."""

WORKER_USUAL_BYTES: Final = 80 * MIB
WAITED_ENOUGH_S: Final = 1.0
"""After that a waiting execution comes before younger ones of a tenant whose worker is free."""

TENANT_TURNS_KEPT: Final = 1024
"""Of how many tenants a pool remembers when they were last let in from the line."""

DEMAND_WINDOW_S: Final = 10.0
WORKERS_KEPT_AFTER_RUNS: Final = 2
"""Before that nobody has shown that there will be more: a command that runs one program replaces nothing."""

TENANT_MAX_BYTES: Final = 128

# Items, and the runners that fork for each ------------------------------------------------------------
ITEMS_MAX: Final = 10_000
"""Of one call."""

ITEM_KEPT_BYTES: Final = 64 * KIB
"""What is kept of stdout and of stderr of one item: the beginning of each."""

ITEM_GRACE_S: Final = 1.0
"""What a runner may take beside the time of an item, to end it and to clear up after it; then the runner is ended."""

ITEM_ATTEMPTS: Final = 2
"""An item whose runner was lost before the item had begun is given to another one."""

RUNNER_START_TIMEOUT_S: Final = 20.0
RUNNER_FRAME_MAX_BYTES: Final = 128 * KIB
RUNNER_STAGGER_S: Final = 0.05
"""A call uses a runner more for each time that it lasts so long and has items left that nobody has begun."""

RUNNER_TURN_S: Final = 0.25
"""After that whoever has a runner gives it back between two items, if somebody waits in line."""

# What is recorded of a program for whoever debugs it ----------------------------------------------------
DEBUG_CONSOLE_LINES_MAX: Final = 1000
DEBUG_LINE_MAX_CHARS: Final = 4096
DEBUG_CONSOLE_MAX_CHARS: Final = 262_144
"""Of all lines together."""

DEBUG_PROFILE_MAX: Final = 200
"""Functions; those that took most time in themselves are kept."""

DEBUG_STEPS_MAX: Final = 5000
DEBUG_NAME_MAX_CHARS: Final = 200
DEBUG_MAX_BYTES: Final = 4 * MIB
"""Of the whole record as JSON, where it comes beside a reply and not in it."""

# Workers, as the operator sees them -----------------------------------------------------------------------
WORKER_TREND_SAMPLES: Final = 60
"""How many samples of memory and processor time are kept of each worker."""

WORKER_TREND_PERIOD_S: Final = 1.0
"""There is no more than one sample in this time."""

WORKERS_ENDED_KEPT: Final = 32
"""How many that have ended are told of."""

# Interpreters that stay -------------------------------------------------------------------------------
SESSION_GRACE_S: Final = 2.0
"""How long code that is interrupted may take to stop; then its interpreter is killed, and what it held is lost."""

SESSION_FRAME_MAX_BYTES: Final = 16 * MIB
DISPLAYS_MAX: Final = 100
DISPLAYS_TOTAL_MAX_BYTES: Final = 32 * MIB
"""What is kept of one call; further displays are counted and thrown away."""

COPIES_MAX: Final = 1000
FORK_TIMEOUT_S: Final = 30.0
IDLE_MIN_S: Final = 0.001
IDLE_MAX_S: Final = 365 * 24 * 3600.0
