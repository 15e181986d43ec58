/* The launcher's wire formats and its parts: wire, plan, build, network, watch, serve, launcher.
 *
 * Policy lives in Python. What is here executes a plan in its given order and stops at the first
 * failure. All numbers are little endian; a string is a u32 length, that many bytes, and a NUL that
 * the length does not count; a byte block is a u32 length and the bytes. */
#ifndef CASEMATE_H
#define CASEMATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define PLAN_MAGIC 0x4c504d43u /* "CMPL" */
#define PLAN_VERSION 5u
#define PLAN_MAX_BYTES (96u * 1024u)
#define PLAN_STEPS_MAX 512u
#define PLAN_FDS_MAX 16
#define SOURCES_MAX 64
#define EXPOSED_MAX 8
#define LISTEN_BACKLOG 512
#define LISTENER_BUFFER_BYTES (256 * 1024) /* each way; the kernel doubles it for what it needs itself */
#define MESSAGE_MAX_BYTES (160u * 1024u)
#define STRINGS_MAX 8192u
#define CHILDREN_MAX 1024
#define ID_RANGES 2
#define WATCHED_MAX 64
#define ERRNO_MAX 4095
#define INOTIFY_INSTANCES_MAX 32 /* for one sandbox, unless its plan says otherwise */

/* How the keeper gets into the control group. */
enum { CGROUP_NONE = 0, CGROUP_JOIN = 1, CGROUP_INTO = 2 };

/* Steps of a plan. The order in the plan is the order of execution. */
enum {
    STEP_SOURCE = 1,   /* s path: open a host path before the identity changes */
    STEP_IDENTITY,     /* become the sandbox user, keeping capabilities for the build */
    STEP_HOSTNAME,     /* s name */
    STEP_ROOT,         /* s staging directory, s options: the tmpfs that becomes the root */
    STEP_TMPFS,        /* s target, s options */
    STEP_DIRECTORY,    /* s target, u mode */
    STEP_FILE,         /* s target, u mode, b content */
    STEP_SYMLINK,      /* s content, s target */
    STEP_BIND,         /* u source index, s target, u attributes, u device number or 0 */
    STEP_BIND_OWN,     /* s path below the new root, s target, u attributes */
    STEP_COVER,        /* s path below the new root, s target: a bind with the root's own attributes */
    STEP_OVERLAY,      /* u source index, s other lower directory, s target, u attributes */
    STEP_PROC,         /* s target, s options */
    STEP_DEVPTS,       /* s target, s options */
    STEP_DEVICES,      /* s target, u attributes, s size, s inodes, r nodes: the keeper makes it */
    STEP_PIVOT,        /* make the new root the root and forget the old one */
    STEP_READ_ONLY,    /* s target, u attributes */
    STEP_AFFINITY,     /* b bit mask of processors */
    STEP_RLIMIT,       /* u resource, q soft, q hard */
    STEP_EXPOSE,       /* s directory handed to the engine when ready */
    STEP_NETWORK,      /* enter the network namespace that the keeper has made meanwhile */
    STEP_LISTEN,       /* u type, u transparent, b address: a socket in there, handed to the engine when ready */
    STEP_DROP_CAPABILITIES,
    STEP_NO_NEW_PRIVILEGES,
    STEP_LANDLOCK,     /* q handled, q scoped, u flags, r rules: u count, then (s path, q access) */
    STEP_SECCOMP,      /* b program */
    STEP_IDS,          /* twice u first, u count: further ids of ours, which the keeper maps as they are */
    STEP_COUNTS,       /* u number of inotify instances, u of watches, u of namespaces: set by the keeper, but for 0 */
    STEP_KEEP_CAPABILITIES, /* q bit mask: what the dropping of capabilities leaves, to programs too */
    STEP_NETLINK,      /* u protocol, u number of acknowledgements, b messages: for the network in there */
    STEP_WATCH,          /* b pairs of u32 number, u32 errno: system calls of which the next filter asks init */
    STEP_LAST = STEP_WATCH
};

/* Where a start failed when it was not in a step of the plan. */
enum {
    FAILED_PLAN = -1,
    FAILED_FORK = -2,
    FAILED_CGROUP = -3,
    FAILED_CLONE = -4,
    FAILED_SETGROUPS = -5,
    FAILED_GID_MAP = -6,
    FAILED_UID_MAP = -7,
    FAILED_REPORT = -8,
    FAILED_INIT = -9,
    FAILED_LOCKDOWN = -10,
    FAILED_NETWORK = -11,
    FAILED_DEVICES = -12
};

/* Engine to init. */
enum {
    REQUEST_SPAWN = 1, /* u id, u flags, u rows, u columns, s cwd, v argv, v environment */
    REQUEST_OPEN,      /* u id, u flags, u mode, s path */
    REQUEST_MKDIR,     /* u id, u mode, s parent, s name */
    REQUEST_SIGNAL,    /* u id, u spawn id or 0 for all, u signal */
    REQUEST_ADOPT,     /* u id, u pid inside, u its fds for stdout, stderr, requests and replies */
    REQUEST_LAST = REQUEST_ADOPT
};
/* A socket is in the place of the channel's request; a forked program is init's own, where it has one. */
enum { SPAWN_PTY = 1u, SPAWN_STDIN = 2u, SPAWN_CHANNEL = 4u, SPAWN_SOCKET = 8u, SPAWN_FORK = 16u };

/* Keeper and init to engine; every message is one struct report, with descriptors attached. */
enum {
    REPORT_STARTED = 1, /* value: host pid; fd: pidfd of init */
    REPORT_FAILED,      /* value: step index or FAILED_*; error: errno */
    REPORT_READY,       /* fds: exposed directories and listening sockets, in the order of their steps */
    REPORT_SPAWNED,     /* id; error; value: pid inside; fds: as the flags asked, or the four of an adopted one */
    REPORT_EXITED,      /* id; value: wait status; user_us, system_us, maxrss_kib */
    REPORT_DONE,        /* id; error; fd of an opened file */
    REPORT_TRIED        /* to the engine unasked; id: number of a system call; value: how often it was tried */
};
struct report {
    uint32_t type, id;
    int32_t value, error;
    uint64_t user_us, system_us, maxrss_kib;
};

struct plan {
    uint32_t magic, version, length, steps;
    uint32_t clone_flags;
    uint32_t uid_inside, uid_outside, gid_inside, gid_outside;
    uint32_t cgroup_kind, cgroup_fds;
    uint32_t devices_fds; /* 1: a detached mount of device nodes comes along, as the last */
};

/* wire.c: reading with bounds, and messages with descriptors. */
struct cursor {
    const uint8_t *at, *end;
    bool bad;
};
uint32_t read_u32(struct cursor *c);
uint64_t read_u64(struct cursor *c);
const char *read_string(struct cursor *c);
const uint8_t *read_block(struct cursor *c, uint32_t *length);
int send_report(int socket_fd, const struct report *report, const int *fds, int count);
ssize_t receive(int socket_fd, void *buffer, size_t size, int *fds, int fds_max, int *count);
void close_all(const int *fds, int count);

/* plan.c: pure checks, no system call. */
bool plan_is_valid(const uint8_t *bytes, size_t length, int fds);
bool request_is_valid(const uint8_t *bytes, size_t length);

/* build.c: carries out the steps; returns the number of exposed descriptors or reports and dies. `devices`
 * is what make_devices has made: a detached mount, or -1 where the plan asks for none; `files` becomes the limit
 * on open files that the plan has for programs. */
struct settings {
    struct {
        uint32_t first, count;
    } ids[ID_RANGES];
    uint32_t inotify_instances, inotify_watches, namespaces; /* of the last two 0: as many as the machine allows */
};
struct settings find_settings(const uint8_t *bytes, size_t length);
int make_devices(const uint8_t *bytes, size_t length, int *devices);
int build_sandbox(const uint8_t *bytes, size_t length, int control, int keeper, int devices, int *exposed,
                  struct rlimit *files);

/* network.c: all return -1 with errno; `open_listener` otherwise a descriptor, the others 0. */
int enter_network(int keeper);
int send_netlink(struct cursor *c);
int open_listener(struct cursor *c);

/* watch.c: all of it in init. What the next filter asks, its installation and the descriptor that it asks through, or
 * -1; the answer to one question, and the telling of what has not been told. */
extern int watch_fd;
int set_watched(struct cursor *c);
int install_filter(const void *program);
void answer_watched(int control);
void tell_watched(int control);

/* serve.c: PID 1 of the sandbox. Never returns, but in a process that is to be init's own program: that ends up in
 * `forked_program`, if there is one. */
extern void (*forked_program)(void);
_Noreturn void serve(int control, const struct rlimit *files);

/* launcher.c: one sandbox from one plan, as told by `channel`; false at its end. What is open in `private_fds` no
 * sandbox inherits. `oom_score` is that of this process, once it is read. */
bool take_plan(int channel, const int *private_fds, int private_count);
extern int oom_score;
bool read_oom_score(void);
int set_oom_score(int score);
int set_effective_capabilities(bool all);

#endif
