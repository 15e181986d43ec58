/* PID 1 of the sandbox: starts processes on request, hands out their pipes or terminal, reaps
 * everything, and ends, with the whole sandbox, when the engine's side of the socket closes. It runs
 * behind the same filter and without capabilities, like the code it starts. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CHANNEL_REQUEST_FD 3
#define CHANNEL_REPLY_FD 4
#define EXEC_FAILED_STATUS 127
#define START_TIMEOUT_MS 5000 /* less than the engine waits for an answer */
#define ADOPTED_PIPES 4
#define PROC_PATH_MAX 64
#define SAFE_FD_MIN 10 /* above every descriptor number that a child is given */

static struct child {
    uint32_t id;
    pid_t pid;
    int reply;
} children[CHILDREN_MAX];

void (*forked_program)(void);
static struct rlimit guest_files;
static int control_fd;
static char *strings[2 * STRINGS_MAX + 4];

/* What one child gets and what the engine gets of it. */
struct spawn {
    uint32_t flags, rows, columns;
    const char *cwd;
    char **argv, **environment;
    int inside[5];  /* stdin, stdout, stderr, request, reply; -1 where there is none */
    int outside[5]; /* the engine's ends, in the same order, without gaps */
    int outside_count;
};

static void answer(int reply, uint32_t id, int32_t error, const int *fds, int count) {
    struct report message = {.type = REPORT_DONE, .id = id, .error = error};
    send_report(reply, &message, fds, count);
}

static void report_exit(const struct child *child, int status, const struct rusage *usage) {
    struct report message = {
        .type = REPORT_EXITED,
        .id = child->id,
        .value = status,
        .user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000u + (uint64_t)usage->ru_utime.tv_usec,
        .system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000u + (uint64_t)usage->ru_stime.tv_usec,
        .maxrss_kib = (uint64_t)usage->ru_maxrss,
    };
    send_report(child->reply, &message, NULL, 0);
}

static struct child *find_child(pid_t pid, uint32_t id) {
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (children[i].pid != 0 && (children[i].pid == pid || (pid == 0 && children[i].id == id)))
            return &children[i];
    return NULL;
}

static struct child *free_child(void) {
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (children[i].pid == 0)
            return &children[i];
    return NULL;
}

/* Orphans of the guest are reaped here as well; only those we started are reported, after what they have tried. */
static void reap(void) {
    struct rusage usage;
    int status;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        struct child *child = find_child(pid, 0);
        if (child == NULL)
            continue;
        tell_watched(control_fd);
        report_exit(child, status, &usage);
        close(child->reply);
        child->pid = 0;
    }
}

static int add_pipe(struct spawn *s, int slot, bool guest_writes) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    s->inside[slot] = ends[guest_writes ? 1 : 0];
    s->outside[s->outside_count++] = ends[guest_writes ? 0 : 1];
    return 0;
}

static int add_socket(struct spawn *s) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    s->inside[3] = ends[0];
    s->outside[s->outside_count++] = ends[1];
    return 0;
}

/* The pipes are made here and not by the engine, so that they belong to the sandbox user and
 * /dev/stdout and its like can be opened again. */
static int open_pipes(struct spawn *s) {
    if (s->flags & SPAWN_STDIN) {
        if (add_pipe(s, 0, false) < 0)
            return -1;
    } else {
        s->inside[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (s->inside[0] < 0)
            return -1;
    }
    if (add_pipe(s, 1, true) < 0 || add_pipe(s, 2, true) < 0)
        return -1;
    if ((s->flags & SPAWN_SOCKET) && add_socket(s) < 0)
        return -1;
    if ((s->flags & SPAWN_CHANNEL) && (add_pipe(s, 3, false) < 0 || add_pipe(s, 4, true) < 0))
        return -1;
    return 0;
}

static int open_terminal(struct spawn *s) {
    struct winsize size = {.ws_row = (unsigned short)s->rows, .ws_col = (unsigned short)s->columns};
    int unlock = 0;
    int leader = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (leader < 0)
        return -1;
    s->outside[s->outside_count++] = leader;
    if (ioctl(leader, TIOCSPTLCK, &unlock) < 0 || ioctl(leader, TIOCSWINSZ, &size) < 0)
        return -1;
    s->inside[0] = ioctl(leader, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return s->inside[0] < 0 ? -1 : 0;
}

static void close_spawn(struct spawn *s) {
    for (int i = 0; i < 5; i++)
        if (s->inside[i] >= 0)
            close(s->inside[i]);
    close_all(s->outside, s->outside_count);
}

/* Two rounds, because a descriptor may stand where another has to go. */
static int place_descriptors(struct spawn *s) {
    int high[5];
    for (int i = 0; i < 5; i++) {
        high[i] = -1;
        if (s->inside[i] >= 0 && (high[i] = fcntl(s->inside[i], F_DUPFD_CLOEXEC, SAFE_FD_MIN)) < 0)
            return -1;
    }
    int last = s->flags & SPAWN_PTY       ? 0
               : s->flags & SPAWN_CHANNEL ? CHANNEL_REPLY_FD
               : s->flags & SPAWN_SOCKET  ? CHANNEL_REQUEST_FD
                                          : 2;
    for (int i = 0; i <= last; i++)
        if (dup2(high[i], i) < 0)
            return -1;
    if ((s->flags & SPAWN_PTY) && (dup2(0, 1) < 0 || dup2(0, 2) < 0))
        return -1;
    return last < 2 ? 2 : last;
}

/* Not by the C library, which keeps 32 and 33 to itself: whoever started the launcher may ignore them. */
static void restore_signal(int number) {
    const struct {
        uint64_t handler, flags, restorer, mask;
    } standard = {0};
    syscall(SYS_rt_sigaction, number, &standard, NULL, sizeof standard.mask);
}

static int enter_process(struct spawn *s, int failure_fd) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        restore_signal(number);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || setsid() < 0)
        return -1;
    if ((s->flags & SPAWN_PTY) && ioctl(s->inside[0], TIOCSCTTY, 0) < 0)
        return -1;
    int last = place_descriptors(s);
    if (last < 0)
        return -1;
    for (int fd = last + 1; fd < failure_fd; fd++)
        close(fd);
    if (close_range((unsigned)failure_fd + 1, ~0u, 0) < 0)
        return -1;
    if (setrlimit(RLIMIT_NOFILE, &guest_files) < 0)
        return -1;
    umask(022);
    return chdir(s->cwd);
}

/* Not dumpable, as init is, until the exec: its neighbours, which have the same user, could otherwise reach
 * init's program, memory and descriptors through it. They can stop it all the same. */
static _Noreturn void become(struct spawn *s, int failure_fd) {
    int safe = fcntl(failure_fd, F_DUPFD_CLOEXEC, 2 * SAFE_FD_MIN);
    if (safe >= 0 && enter_process(s, safe) == 0) {
        if (s->flags & SPAWN_FORK) {
            close(safe);
            forked_program();
            _exit(EXEC_FAILED_STATUS);
        }
        environ = s->environment;
        execvpe(s->argv[0], s->argv, s->environment);
    }
    int error = errno;
    if (write(safe >= 0 ? safe : failure_fd, &error, sizeof error) < 0)
        _exit(EXEC_FAILED_STATUS);
    _exit(EXEC_FAILED_STATUS);
}

/* 0 once the child has become its program, otherwise the errno of what failed. Nobody may hold init up for
 * longer than a start takes: a guest can stop the child before its exec. */
static int outcome(int failure_fd) {
    struct pollfd wait = {.fd = failure_fd, .events = POLLIN};
    int ready, error = 0;
    do
        ready = poll(&wait, 1, START_TIMEOUT_MS);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return ready == 0 ? ETIMEDOUT : errno;
    ssize_t got = read(failure_fd, &error, sizeof error);
    if (got == 0)
        return 0;
    return got == sizeof error && error > 0 && error <= ERRNO_MAX ? error : EIO;
}

/* Returns the pid, or -1 with the errno of whatever failed, in the child as well, which then is no more. */
static pid_t start(struct spawn *s) {
    int failure[2];
    if (pipe2(failure, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        become(s, failure[1]);
    int error = errno;
    close(failure[1]);
    if (pid > 0 && (error = outcome(failure[0])) != 0)
        kill(pid, SIGKILL);
    close(failure[0]);
    errno = error;
    return pid > 0 && error == 0 ? pid : -1;
}

static char **read_vector(struct cursor *c, char **to) {
    uint32_t count = read_u32(c);
    for (uint32_t i = 0; i < count; i++)
        to[i] = (char *)(uintptr_t)read_string(c);
    to[count] = NULL;
    return to;
}

/* True if the reply socket is kept for the report of the exit. */
static bool spawn_request(struct cursor *c, int reply) {
    struct spawn s = {.inside = {-1, -1, -1, -1, -1}};
    uint32_t id = read_u32(c);
    s.flags = read_u32(c);
    s.rows = read_u32(c);
    s.columns = read_u32(c);
    s.cwd = read_string(c);
    s.argv = read_vector(c, strings);
    s.environment = read_vector(c, strings + STRINGS_MAX + 2);
    struct child *child = free_child();
    pid_t pid = -1;
    errno = child == NULL ? EAGAIN : EINVAL;
    if (child != NULL && (s.flags & SPAWN_FORK ? forked_program != NULL : s.argv[0] != NULL))
        if ((s.flags & SPAWN_PTY ? open_terminal(&s) : open_pipes(&s)) == 0)
            pid = start(&s);
    int error = errno;
    if (pid > 0)
        *child = (struct child){.id = id, .pid = pid, .reply = reply};
    struct report spawned = {
        .type = REPORT_SPAWNED, .id = id, .value = pid, .error = pid > 0 ? 0 : error};
    send_report(reply, &spawned, s.outside, pid > 0 ? s.outside_count : 0);
    close_spawn(&s);
    return pid > 0;
}

/* The other end of a pipe of a process, of which it may hold any end: a new description, whose flags nobody
 * inside can change. Looked at before it is opened, for the process may have put anything there. */
static int open_pipe_of(pid_t pid, uint32_t fd, int flags) {
    char path[PROC_PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd/%u", pid, fd);
    int place = open(path, O_PATH | O_CLOEXEC), opened = -1;
    if (place < 0)
        return -1;
    errno = EPROTO;
    if (fstat(place, &status) == 0 && S_ISFIFO(status.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", place);
        opened = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    int error = errno;
    close(place);
    errno = error;
    return opened;
}

/* Whether it runs and is a child of ours that nobody has asked for yet. Orphans become our children; a number that
 * a guest has told us may belong to anything in its sandbox, and to nothing else. */
static bool is_adoptable(pid_t pid) {
    siginfo_t info = {0};
    errno = EEXIST;
    if (pid <= 1 || find_child(pid, 0) != NULL)
        return false;
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return false;
    errno = ESRCH;
    return info.si_pid == 0;
}

/* A process that the guest has forked and left to us becomes one that we report on, with its pipes. True if the
 * reply socket is kept. */
static bool adopt_request(struct cursor *c, int reply) {
    uint32_t id = read_u32(c);
    pid_t pid = (pid_t)read_u32(c);
    int fds[ADOPTED_PIPES], count = 0;
    struct child *child = free_child();
    bool adopted = false;
    errno = EAGAIN;
    if (child != NULL && is_adoptable(pid)) {
        for (; count < ADOPTED_PIPES; count++)
            if ((fds[count] = open_pipe_of(pid, read_u32(c), count == 2 ? O_WRONLY : O_RDONLY)) < 0)
                break;
        adopted = count == ADOPTED_PIPES;
    }
    struct report message = {.type = REPORT_SPAWNED, .id = id, .value = pid, .error = adopted ? 0 : errno};
    if (adopted)
        *child = (struct child){.id = id, .pid = pid, .reply = reply};
    send_report(reply, &message, fds, adopted ? count : 0);
    close_all(fds, count);
    return adopted;
}

static int open_beneath_root(const char *path, uint64_t flags, uint64_t mode) {
    struct open_how how = {.flags = flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                           .mode = flags & O_CREAT ? mode : 0,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static void open_request(struct cursor *c, int reply) {
    uint32_t id = read_u32(c), flags = read_u32(c), mode = read_u32(c);
    int fd = open_beneath_root(read_string(c), flags, mode);
    answer(reply, id, fd < 0 ? errno : 0, &fd, fd < 0 ? 0 : 1);
    if (fd >= 0)
        close(fd);
}

static void mkdir_request(struct cursor *c, int reply) {
    uint32_t id = read_u32(c), mode = read_u32(c);
    int parent = open_beneath_root(read_string(c), O_RDONLY | O_DIRECTORY, 0);
    int failed = parent < 0 ? -1 : mkdirat(parent, read_string(c), mode);
    answer(reply, id, failed < 0 ? errno : 0, NULL, 0);
    if (parent >= 0)
        close(parent);
}

/* A process's group, since a shell's children are to get what the shell gets; or, without an id,
 * everything in the sandbox but ourselves. */
static void signal_request(struct cursor *c, int reply) {
    uint32_t id = read_u32(c), target = read_u32(c);
    int number = (int)read_u32(c);
    struct child *child = target == 0 ? NULL : find_child(0, target);
    errno = ESRCH;
    int failed = child == NULL && target != 0 ? -1 : kill(child == NULL ? -1 : -child->pid, number);
    answer(reply, id, failed < 0 ? errno : 0, NULL, 0);
}

static void handle(const uint8_t *bytes, size_t length, int reply) {
    if (!request_is_valid(bytes, length))
        _exit(1);
    struct cursor c = {bytes, bytes + length, false};
    bool kept = false;
    switch (read_u32(&c)) {
    case REQUEST_SPAWN: kept = spawn_request(&c, reply); break;
    case REQUEST_OPEN: open_request(&c, reply); break;
    case REQUEST_MKDIR: mkdir_request(&c, reply); break;
    case REQUEST_ADOPT: kept = adopt_request(&c, reply); break;
    default: signal_request(&c, reply); break;
    }
    if (!kept)
        close(reply);
}

/* Each request brings the socket for its answer, so that many threads of the engine can ask at once.
 * One that arrives without (no descriptor was free here) is dropped; its sender sees the end of file. */
static void take_request(int control, uint8_t *buffer) {
    int reply, count;
    ssize_t length = receive(control, buffer, MESSAGE_MAX_BYTES, &reply, 1, &count);
    if (length == 0 || (length < 0 && errno != EMSGSIZE))
        _exit(0);
    if (length > 0 && count == 1)
        handle(buffer, (size_t)length, reply);
}

_Noreturn void serve(int control, const struct rlimit *files) {
    static uint8_t buffer[MESSAGE_MAX_BYTES];
    struct signalfd_siginfo signals;
    sigset_t child_set;
    guest_files = *files;
    control_fd = control;
    sigemptyset(&child_set);
    sigaddset(&child_set, SIGCHLD);
    int signal_fd = signalfd(-1, &child_set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        _exit(1);
    struct pollfd wait[3] = {
        {.fd = control, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}, {.fd = watch_fd, .events = POLLIN}};
    for (;;) {
        if (poll(wait, 3, -1) < 0 && errno != EINTR)
            _exit(1);
        if (wait[2].revents & POLLIN)
            answer_watched(control);
        if ((wait[1].revents & POLLIN) && read(signal_fd, &signals, sizeof signals) > 0)
            reap();
        if (wait[0].revents != 0)
            take_request(control, buffer);
    }
}
