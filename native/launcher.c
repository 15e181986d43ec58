/* Starts sandboxes from plans, in the launcher and in zygotes. It forks a keeper for each plan; the keeper joins
 * the control group, clones PID 1 of the sandbox into its namespaces, writes the id maps and is gone. PID 1 is a
 * child of the launcher or zygote (CLONE_PARENT) and dies with it. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUEST_OOM_SCORE 500

static uint8_t plan_bytes[PLAN_MAX_BYTES];
int oom_score;

static _Noreturn void fail(int control, int32_t step) {
    struct report report = {.type = REPORT_FAILED, .value = step, .error = errno};
    send_report(control, &report, NULL, 0);
    _exit(1);
}

static void die_with_parent(void) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        _exit(1);
}

/* After the identity changes: a change of user clears the parent-death signal. */
static _Noreturn void init(const struct plan *plan, int control, int keeper, int devices) {
    int exposed[EXPOSED_MAX];
    sigset_t child_set;
    char byte;
    if (read(keeper, &byte, 1) != 1)
        _exit(1);
    sigemptyset(&child_set);
    sigaddset(&child_set, SIGCHLD);
    if (signal(SIGCHLD, SIG_DFL) == SIG_ERR || sigprocmask(SIG_BLOCK, &child_set, NULL) < 0 ||
        setsid() < 0 || prctl(PR_SET_NAME, "init", 0, 0, 0) < 0)
        fail(control, FAILED_INIT);
    struct rlimit files = {0}; /* a plan without it lets no program open anything */
    int count = build_sandbox(plan_bytes, plan->length, control, keeper, devices, exposed, &files);
    close(keeper);
    die_with_parent();
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        fail(control, FAILED_INIT);
    memset(plan_bytes, 0, sizeof plan_bytes);
    struct report ready = {.type = REPORT_READY};
    if (send_report(control, &ready, exposed, count) < 0)
        _exit(1);
    close_all(exposed, count);
    serve(control, &files);
}

static int write_to(const char *path, const char *value) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int failed = write(fd, value, strlen(value)) < 0 ? -1 : 0;
    int error = errno;
    close(fd);
    errno = error;
    return failed;
}

static int write_text(pid_t pid, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return write_to(path, text);
}

/* The kernel lets nobody without privilege go below what somebody with it has written. */
int set_oom_score(int score) {
    char text[16];
    snprintf(text, sizeof text, "%d", score);
    return write_to("/proc/self/oom_score_adj", text);
}

bool read_oom_score(void) {
    char text[16] = {0};
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    oom_score = atoi(text);
    return fd >= 0 && close(fd) == 0 && got > 0;
}

/* Of a nursery the ids of the sandboxes to be started in it as well, as they are. */
static int write_map(pid_t pid, const char *name, uint32_t inside, uint32_t outside, const struct settings *settings) {
    char lines[128];
    int length = snprintf(lines, sizeof lines, "%u %u 1\n", inside, outside);
    for (int i = 0; i < ID_RANGES; i++)
        if (settings->ids[i].count > 0)
            length += snprintf(lines + length, sizeof lines - (size_t)length, "%u %u %u\n", settings->ids[i].first,
                               settings->ids[i].first, settings->ids[i].count);
    return write_text(pid, name, lines);
}

/* Version 1 of control groups moves a process by a write; a wait of about 13 ms after an idle pause
 * is the kernel's, and is paid here, before the sandbox exists and beside other starts. */
static int join_groups(const int *fds, int count) {
    for (int i = 0; i < count; i++)
        if (write(fds[i], "0", 1) != 1)
            return -1;
    close_all(fds, count);
    return 0;
}

int set_effective_capabilities(bool all) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        data[i].effective = all ? data[i].permitted : 0;
    return (int)syscall(SYS_capset, &header, data);
}

/* What a sandbox holds of inotify, of pending signals and of namespaces, the kernel counts for the owner of
 * its user namespace as well, which is the effective user of the one who makes it. As root that has to be
 * the run's own user, or one run could use up what root and all other runs have. Capabilities stay, and
 * files are opened as root: they go by the file system user. */
static int own_namespaces(const struct plan *plan) {
    if (geteuid() == plan->uid_outside)
        return 0;
    if ((getgroups(0, NULL) != 0 && setgroups(0, NULL) < 0) || syscall(SYS_setresuid, -1, plan->uid_outside, -1) < 0)
        return -1;
    setfsuid(0);
    die_with_parent(); /* a change of user clears it */
    /* The change has lowered them too; the saved user keeps them permitted. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -1 : set_effective_capabilities(true);
}

static pid_t clone_init(const struct plan *plan, int *pidfd) {
    unsigned long flags = plan->clone_flags | CLONE_PARENT | CLONE_PIDFD;
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, pidfd, NULL, NULL);
}

/* Any program in the sandbox may listen on any port of its own lo. */
static int free_low_ports(void) {
    return write_to("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
}

/* For each user in a nursery: what their making takes of the machine's memory no control group counts. */
static int limit_namespaces(uint32_t each) {
    static const char *const kinds[] = {"user", "pid", "uts", "ipc", "net", "mnt", "cgroup"};
    char path[64], text[16];
    snprintf(text, sizeof text, "%u", each);
    for (size_t i = 0; each > 0 && i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(path, sizeof path, "/proc/sys/user/max_%s_namespaces", kinds[i]);
        if (write_to(path, text) < 0)
            return -1;
    }
    return 0;
}

/* The host's limit is for all that one user runs, which without a user of its own is every sandbox. */
static int limit_watches(const struct settings *settings) {
    char instances[16], watches[16];
    snprintf(instances, sizeof instances, "%u", settings->inotify_instances);
    snprintf(watches, sizeof watches, "%u", settings->inotify_watches);
    return write_to("/proc/sys/user/max_inotify_instances", instances) < 0 ||
           (settings->inotify_watches > 0 && write_to("/proc/sys/user/max_inotify_watches", watches) < 0) ? -1 : 0;
}

static int raise_loopback(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -1;
    request.ifr_flags |= IFF_UP;
    int failed = ioctl(fd, SIOCSIFFLAGS, &request);
    close(fd);
    return failed;
}

/* The slowest part of a sandbox is its network namespace, whose making also waits for the teardown of
 * earlier ones. The keeper makes it, owned by the sandbox's user namespace, while init builds the root. */
static int make_network(const struct settings *settings) {
    if (unshare(CLONE_NEWNET) < 0 || raise_loopback() < 0 ||
        free_low_ports() < 0 || limit_watches(settings) < 0 || limit_namespaces(settings->namespaces) < 0)
        return -1;
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static _Noreturn void keep(const struct plan *plan, const int *fds, int count) {
    int control = fds[0], link[2], pidfd = -1, devices = -1;
    struct settings settings = find_settings(plan_bytes, plan->length);
    if (plan->devices_fds > 0)
        devices = fds[--count];
    die_with_parent();
    /* Before anything of the engine the out-of-memory killer is to take a sandbox. Its init has the same score:
     * an init that could change it, or that of its children, would have to let its neighbours look at it. */
    if (oom_score < GUEST_OOM_SCORE && set_oom_score(GUEST_OOM_SCORE) < 0)
        fail(control, FAILED_INIT);
    if (plan->cgroup_kind == CGROUP_JOIN && join_groups(fds + 1, count - 1) < 0)
        fail(control, FAILED_CGROUP);
    if (plan->cgroup_kind == CGROUP_INTO)
        close_all(fds + 1, count - 1);
    if (devices < 0 && make_devices(plan_bytes, plan->length, &devices) < 0)
        fail(control, FAILED_DEVICES);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0)
        fail(control, FAILED_CLONE);
    if (own_namespaces(plan) < 0)
        fail(control, FAILED_UID_MAP);
    pid_t pid = clone_init(plan, &pidfd);
    if (pid < 0)
        fail(control, FAILED_CLONE);
    if (pid == 0) {
        close(link[0]);
        init(plan, control, link[1], devices);
    }
    close(link[1]);
    if (write_text(pid, "setgroups", "deny") < 0)
        fail(control, FAILED_SETGROUPS);
    if (write_map(pid, "gid_map", plan->gid_inside, plan->gid_outside, &settings) < 0)
        fail(control, FAILED_GID_MAP);
    if (write_map(pid, "uid_map", plan->uid_inside, plan->uid_outside, &settings) < 0)
        fail(control, FAILED_UID_MAP);
    /* Before init becomes the sandbox's user, whom a keeper that is not root may not look at. */
    if (setns(pidfd, CLONE_NEWUSER) < 0)
        fail(control, FAILED_NETWORK);
    struct report started = {.type = REPORT_STARTED, .value = pid};
    if (send_report(control, &started, &pidfd, 1) < 0 || write(link[0], "g", 1) != 1)
        fail(control, FAILED_REPORT);
    int network = make_network(&settings);
    if (network < 0 || send_report(link[0], &started, &network, 1) < 0)
        fail(control, FAILED_NETWORK);
    _exit(0);
}

static pid_t fork_keeper(const struct plan *plan, const int *fds) {
    if (plan->cgroup_kind != CGROUP_INTO)
        return fork();
    struct clone_args arguments = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fds[1]};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void launch(size_t length, const int *fds, int count, const int *private_fds, int private_count) {
    struct plan plan;
    if (count == 0)
        return;
    struct report failed = {.type = REPORT_FAILED, .value = FAILED_PLAN, .error = EINVAL};
    if (plan_is_valid(plan_bytes, length, count)) {
        memcpy(&plan, plan_bytes, sizeof plan);
        pid_t pid = fork_keeper(&plan, fds);
        if (pid == 0) {
            close_all(private_fds, private_count);
            keep(&plan, fds, count);
        }
        if (pid > 0)
            return;
        failed.value = plan.cgroup_kind == CGROUP_INTO ? FAILED_CGROUP : FAILED_FORK;
        failed.error = errno;
    }
    send_report(fds[0], &failed, NULL, 0);
}

/* What is open in `private_fds`, and `channel`, no sandbox inherits. False at the end of the connection. */
bool take_plan(int channel, const int *private_fds, int private_count) {
    int fds[PLAN_FDS_MAX], count;
    ssize_t length = receive(channel, plan_bytes, sizeof plan_bytes, fds, PLAN_FDS_MAX, &count);
    if (length == 0 || (length < 0 && errno != EMSGSIZE))
        return false;
    if (length > 0)
        launch((size_t)length, fds, count, private_fds, private_count);
    close_all(fds, count);
    return true;
}
