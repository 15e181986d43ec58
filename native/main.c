/* The launcher: one resident, single-threaded process for each engine. It takes launch plans from its socket, and
 * dies with the engine. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENGINE_FD 3
#define NAME "casemate-launch" /* a copy in memory has none that says anything */

/* <linux/ioprio.h> came with Linux 5.15. */
#define DISK_WHO_PROCESS 1
#define DISK_CLASS_SHIFT 13
#define DISK_CLASS_REAL_TIME 1
#define DISK_CLASS_BEST_EFFORT 2
#define DISK_LEVEL_MASK 7
#define DISK_LEVEL_ORDINARY 4

static int engine_pidfd = -1;

/* A copy of the socket in some other child of the engine must not keep us alive, so the engine's own
 * end is watched as well. */
static bool watch_engine(void) {
    struct ucred engine;
    socklen_t size = sizeof engine;
    if (getsockopt(ENGINE_FD, SOL_SOCKET, SO_PEERCRED, &engine, &size) < 0 || engine.pid != getppid())
        return false;
    engine_pidfd = (int)syscall(SYS_pidfd_open, engine.pid, 0);
    return engine_pidfd >= 0 && getppid() == engine.pid;
}

/* The kernel tells of a process that has none the one that follows from its nice value. */
static int give_up_disk_priority(void) {
    int priority = (int)syscall(SYS_ioprio_get, DISK_WHO_PROCESS, 0);
    int class = priority >> DISK_CLASS_SHIFT, level = priority & DISK_LEVEL_MASK;
    bool is_raised = class == DISK_CLASS_REAL_TIME ||
                     (class == DISK_CLASS_BEST_EFFORT && level < DISK_LEVEL_ORDINARY);
    return priority >= 0 && is_raised ? (int)syscall(SYS_ioprio_set, DISK_WHO_PROCESS, 0, 0) : 0;
}

/* Without privilege a score can be raised, but then a guest could lower it again as far as it was: none starts. */
static bool give_up_oom_protection(void) {
    if (!read_oom_score())
        return false;
    oom_score = oom_score < 0 ? 0 : oom_score;
    if (set_oom_score(oom_score) < 0 || set_effective_capabilities(false) < 0)
        return false;
    bool can_return = set_oom_score(-1) == 0;
    return set_effective_capabilities(true) == 0 && !can_return;
}

/* An engine may run with a priority of its own, for processors, for disks and for memory, and with addresses that
 * are not random; what it does not trust inherits ours, and gets none of it. Stepping back needs no right; what
 * stands below the ordinary stays there. */
static bool be_ordinary(void) {
    struct sched_param none = {0};
    int policy = sched_getscheduler(0);
    bool is_special = policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE;
    if (policy < 0 || (is_special && sched_setscheduler(0, SCHED_OTHER, &none) < 0))
        return false;
    if (getpriority(PRIO_PROCESS, 0) < 0 && setpriority(PRIO_PROCESS, 0, 0) < 0)
        return false;
    return give_up_disk_priority() == 0 && give_up_oom_protection() && personality(PER_LINUX) >= 0;
}

/* An ordinary user's guests may send as many descriptors as their own limit allows, and leave them untaken; the
 * kernel counts them for the user, and lets nobody with a limit below that number send another. */
static bool raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return false;
    files.rlim_cur = files.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &files) == 0;
}

int main(void) {
    if (!watch_engine() || !be_ordinary() || !raise_file_limit() || fcntl(ENGINE_FD, F_SETFD, FD_CLOEXEC) < 0 || setsid() < 0 ||
        signal(SIGCHLD, SIG_IGN) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR || prctl(PR_SET_NAME, NAME, 0, 0, 0) < 0)
        return 1;
    struct pollfd wait[2] = {{.fd = ENGINE_FD, .events = POLLIN}, {.fd = engine_pidfd, .events = POLLIN}};
    const int ours[2] = {ENGINE_FD, engine_pidfd};
    for (;;) {
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (wait[1].revents != 0)
            return 0;
        if (wait[0].revents != 0 && !take_plan(ENGINE_FD, ours, 2))
            return 0;
    }
}
