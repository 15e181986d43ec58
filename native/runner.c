/* For an interpreter that has loaded this as a library: items, each in a fork of the interpreter, one after the other.
 *
 * The runner, which forks, never holds anything of an item: its child reads the request itself, and what passes through
 * on the way back does so in memory that children do not get and that is wiped. So nothing of one item can be found in
 * the memory of the next. Nobody inside can read the runner's memory or descriptors either: it cannot be dumped. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_FD 3
#define REPLY_FD 4
#define ANSWER_FD 63 /* where a child has its way out, so that its own files get the numbers that they get natively */
#define BUFFER_BYTES 65536
#define ENTRIES_MAX 2000 /* of what an item has left behind, that is removed; with more the runner retires */
#define DEPTH_MAX 32
#define DIRECTORIES 5
#define SCHEDULING_BYTES 128
#define SOCKETS_BYTES 1024
#define MILLISECOND_NS 1000000
#define SECOND_NS 1000000000
#define EXPORTED __attribute__((visibility("default")))

enum { FRAME_BEGUN = 1, FRAME_ANSWER, FRAME_STDOUT, FRAME_STDERR, FRAME_END, FRAME_READY };
enum { STOPPED_TIME = 1, STOPPED_OUTPUT, STOPPED_ANSWER }; /* why an item was killed; the engine has the same numbers */
enum { LEFT_FILES = 1, LEFT_IPC = 2, LEFT_LIMITS = 4, LEFT_SOCKETS = 8 }; /* what an item has changed for good */
enum { OUT, ERR, ANSWER, ENDED, WATCHED };

/* What comes before the text of a request. */
struct head {
    uint32_t number, timeout_ms, kept_bytes, answer_max_bytes;
    uint64_t output_max_bytes;
    uint32_t size, reserved;
};

struct end {
    uint32_t number;
    int32_t wait_status, error; /* `error`: why it could not be forked */
    uint32_t stopped, left, reserved;
    uint64_t wall_us, user_us, system_us, memory_bytes, total_bytes[3];
};

struct directory {
    const char *path;
    int fd;
    struct stat before;
};

static struct directory directories[DIRECTORIES] = {
    {.path = "/work"}, {.path = "/code"}, {.path = "/tmp"}, {.path = "/dev/shm"}, {.path = "/home/guest"}};
static struct statfs empty;
static int sockets_fd;
static struct settings {
    struct rlimit limits[RLIM_NLIMITS];
    unsigned char scheduling[SCHEDULING_BYTES];
} settings;
static unsigned char *buffer; /* children do not get it */
static unsigned char *request;
static uint32_t request_bytes;
static sigset_t mask_before;

/* Frames to the engine ------------------------------------------------------------------------------------------- */

static void write_all(int fd, const void *from, size_t size) {
    const unsigned char *bytes = from;
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            _exit(0); /* the engine has gone, and init with it soon */
        bytes += written;
        size -= (size_t)written;
    }
}

static bool read_all(int fd, void *to, size_t size) {
    unsigned char *bytes = to;
    while (size > 0) {
        ssize_t taken = read(fd, bytes, size);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken <= 0)
            return false;
        bytes += taken;
        size -= (size_t)taken;
    }
    return true;
}

static void send_frame(unsigned char kind, const void *body, uint32_t size) {
    uint32_t length = size + 1;
    unsigned char head[5] = {(unsigned char)(length >> 24), (unsigned char)(length >> 16), (unsigned char)(length >> 8),
                             (unsigned char)length, kind};
    write_all(REPLY_FD, head, sizeof head);
    write_all(REPLY_FD, body, size);
}

/* The child ------------------------------------------------------------------------------------------------------ */

static void close_others(void) {
    if (syscall(SYS_close_range, 3, ANSWER_FD - 1, 0) == 0 && syscall(SYS_close_range, ANSWER_FD + 1, ~0U, 0) == 0)
        return;
    long most = sysconf(_SC_OPEN_MAX);
    for (int fd = 3; fd < most; fd++)
        if (fd != ANSWER_FD)
            close(fd);
}

/* Whoever runs out of memory is to be the item, not its runner. */
static void be_killed_first(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t ignored = write(fd, "1000", 4);
    (void)ignored;
    close(fd);
}

/* An open file has state of its own, which all who have inherited it would share. */
static bool open_stdin(void) {
    close(STDIN_FILENO);
    return open("/dev/null", O_RDONLY) == STDIN_FILENO;
}

/* Everything of the runner's is gone before anything of the program runs. */
static void become_item(const struct head *head, int out, int err, int answer) {
    setsid();
    request = malloc(head->size + 1);
    request_bytes = head->size;
    if (request == NULL || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0 ||
        dup3(answer, ANSWER_FD, O_CLOEXEC) < 0 || !open_stdin() || !read_all(REQUEST_FD, request, head->size))
        _exit(1);
    close_others();
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    be_killed_first();
    sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

/* The text of the request; whoever calls gives room for as many bytes as `casemate_runner` has said. Once. */
EXPORTED void casemate_runner_request(unsigned char *to) {
    memcpy(to, request, request_bytes);
    explicit_bzero(request, request_bytes);
    free(request);
    request = NULL;
}

/* Only one answer can be given. */
EXPORTED void casemate_runner_answer(const unsigned char *from, const int *size) {
    signal(SIGPIPE, SIG_IGN);
    for (size_t at = 0; at < (size_t)*size;) {
        ssize_t written = write(ANSWER_FD, from + at, (size_t)*size - at);
        if (written < 0 && errno != EINTR)
            break;
        at += written < 0 ? 0 : (size_t)written;
    }
    close(ANSWER_FD);
}

EXPORTED void casemate_runner_exit(const int *status) {
    _exit(*status);
}

/* What an item leaves behind ------------------------------------------------------------------------------------- */

static bool empty_directory(int fd, int depth, int *room);

static bool remove_entry(int parent, const char *name, int depth, int *room) {
    if (--*room < 0)
        return false;
    if (unlinkat(parent, name, 0) == 0)
        return true;
    if (errno != EISDIR && errno != EPERM)
        return false;
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return true;
    fchmodat(parent, name, 0700, 0);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool emptied = empty_directory(fd, depth + 1, room);
    close(fd);
    return emptied && unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

static bool empty_directory(int fd, int depth, int *room) {
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = depth > DEPTH_MAX || again < 0 ? NULL : fdopendir(again);
    if (listing == NULL) {
        if (again >= 0)
            close(again);
        return false;
    }
    bool emptied = true;
    for (struct dirent *entry; emptied && (entry = readdir(listing)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            emptied = remove_entry(fd, entry->d_name, depth, room);
    closedir(listing);
    return emptied;
}

static bool same_time(const struct timespec *one, const struct timespec *other) {
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

/* Every change of a directory shows in the time of its last change, which nobody can set. Where the kernel counts that
 * in ticks, two changes in one may look like none: so what can be told apart otherwise is looked at, too. */
static bool is_untouched(const struct directory *each) {
    struct stat now;
    return fstat(each->fd, &now) == 0 && same_time(&now.st_ctim, &each->before.st_ctim) &&
           same_time(&now.st_mtim, &each->before.st_mtim) && now.st_mode == each->before.st_mode &&
           flistxattr(each->fd, NULL, 0) <= 0;
}

static bool restore(struct directory *each, int *room) {
    const struct timespec times[2] = {each->before.st_atim, each->before.st_mtim};
    return fchmod(each->fd, each->before.st_mode & 07777) == 0 && empty_directory(each->fd, 0, room) &&
           flistxattr(each->fd, NULL, 0) <= 0 && futimens(each->fd, times) == 0 && fstat(each->fd, &each->before) == 0;
}

static bool is_as_empty(void) {
    struct statfs now;
    return fstatfs(directories[0].fd, &now) == 0 && now.f_ffree == empty.f_ffree && now.f_bfree == empty.f_bfree;
}

/* All directories are parts of one file system, whose counts tell of files in any depth, also of those without a name. */
static bool files_are_gone(void) {
    int room = ENTRIES_MAX;
    for (int at = 0; at < DIRECTORIES; at++)
        if (!is_untouched(&directories[at]) && !restore(&directories[at], &room))
            return false;
    return is_as_empty();
}

static bool ipc_is_gone(void) {
    struct shm_info memory = {0};
    struct seminfo semaphores = {0};
    struct msginfo queues = {0};
    union {
        int value;
        struct seminfo *info;
    } argument = {.info = &semaphores};
    shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&memory);
    semctl(0, 0, SEM_INFO, argument);
    msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)&queues);
    return memory.used_ids == 0 && semaphores.semusz == 0 && queues.msgpool == 0;
}

/* Anybody of the same user can change these of another process. */
static void read_settings(struct settings *now) {
    memset(now, 0, sizeof *now);
    for (int number = 0; number < RLIM_NLIMITS; number++)
        getrlimit(number, &now->limits[number]);
    syscall(SYS_sched_getattr, 0, now->scheduling, SCHEDULING_BYTES, 0);
}

static bool settings_are_the_same(void) {
    struct settings now;
    read_settings(&now);
    return memcmp(&now, &settings, sizeof now) == 0;
}

/* Signals that are never delivered take room of what the user may have waiting. */
static void forget_signals(void) {
    const struct timespec at_once = {0, 0};
    sigset_t all;
    sigfillset(&all);
    while (sigtimedwait(&all, NULL, &at_once) > 0)
        continue;
}

/* A connection that has been closed keeps its port for a minute, whoever it was. Without the file there is no TCP. */
static bool sockets_are_gone(void) {
    char text[SOCKETS_BYTES];
    ssize_t size = sockets_fd < 0 ? 0 : pread(sockets_fd, text, sizeof text - 1, 0);
    text[size < 0 ? 0 : size] = '\0';
    const char *waiting = strstr(text, " tw ");
    return size >= 0 && (waiting == NULL || atoi(waiting + 4) == 0);
}

static bool remember_directories(void) {
    for (int at = 0; at < DIRECTORIES; at++) {
        struct directory *each = &directories[at];
        int room = ENTRIES_MAX;
        each->fd = open(each->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (each->fd < 0 || fstat(each->fd, &each->before) < 0 || !restore(each, &room))
            return false;
    }
    return fstatfs(directories[0].fd, &empty) == 0;
}

/* The runner ----------------------------------------------------------------------------------------------------- */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void add_usage(struct end *end, const struct rusage *used) {
    end->user_us += (uint64_t)used->ru_utime.tv_sec * 1000000 + (uint64_t)used->ru_utime.tv_usec;
    end->system_us += (uint64_t)used->ru_stime.tv_sec * 1000000 + (uint64_t)used->ru_stime.tv_usec;
    if ((uint64_t)used->ru_maxrss * 1024 > end->memory_bytes)
        end->memory_bytes = (uint64_t)used->ru_maxrss * 1024;
}

/* All that is left of an item dies at once, and becomes ours as its parents do. */
static void bury(pid_t pid, struct end *end) {
    struct rusage used;
    int status;
    kill(-1, SIGKILL);
    for (pid_t dead; (dead = wait4(-1, &status, __WALL, &used)) > 0 || errno == EINTR;) {
        if (dead <= 0)
            continue;
        add_usage(end, &used);
        if (dead == pid)
            end->wait_status = status;
    }
}

/* Pass one piece on, as far as it is kept: 1; 0 when there will be none any more, -1 when there is none now. */
static int pass_on(const struct head *head, int fd, int which, struct end *end) {
    static const unsigned char kinds[] = {[OUT] = FRAME_STDOUT, [ERR] = FRAME_STDERR, [ANSWER] = FRAME_ANSWER};
    ssize_t taken = read(fd, buffer, BUFFER_BYTES);
    if (taken <= 0)
        return (int)taken;
    uint64_t most = which == ANSWER ? head->answer_max_bytes : head->kept_bytes, had = end->total_bytes[which];
    uint64_t room = had >= most ? 0 : most - had;
    uint64_t kept = (uint64_t)taken < room ? (uint64_t)taken : room;
    end->total_bytes[which] += (uint64_t)taken;
    if (kept > 0)
        send_frame(kinds[which], buffer, (uint32_t)kept);
    explicit_bzero(buffer, (size_t)taken);
    if (which == ANSWER && end->total_bytes[ANSWER] > most && end->stopped == 0)
        end->stopped = STOPPED_ANSWER;
    if (which != ANSWER && end->total_bytes[OUT] + end->total_bytes[ERR] > head->output_max_bytes && end->stopped == 0)
        end->stopped = STOPPED_OUTPUT;
    return 1;
}

static void watch(const struct head *head, struct pollfd *watched, struct end *end) {
    int64_t deadline_ns = now_ns() + (int64_t)head->timeout_ms * MILLISECOND_NS;
    while (end->stopped == 0) {
        int64_t left_ns = deadline_ns - now_ns();
        if (left_ns <= 0) {
            end->stopped = STOPPED_TIME;
            return;
        }
        const struct timespec left = {left_ns / SECOND_NS, left_ns % SECOND_NS};
        if (ppoll(watched, WATCHED, &left, NULL) < 0 && errno != EINTR)
            _exit(1);
        for (int which = 0; which < ENDED; which++)
            if (watched[which].revents != 0 && pass_on(head, watched[which].fd, which, end) == 0)
                watched[which].fd = -1; /* poll passes over it */
        if (watched[ENDED].revents != 0)
            return;
    }
}

/* What was said before the end is in the pipes. */
static void drain(const struct head *head, struct pollfd *watched, struct end *end) {
    for (int which = 0; which < ENDED; which++)
        while (watched[which].fd >= 0 && pass_on(head, watched[which].fd, which, end) > 0)
            continue;
}

static void see_through(const struct head *head, pid_t pid, const int fds[3], struct end *end) {
    struct pollfd watched[WATCHED];
    for (int which = 0; which < ENDED; which++)
        watched[which] = (struct pollfd){.fd = fds[which], .events = POLLIN};
    int ended = (int)syscall(SYS_pidfd_open, pid, 0);
    watched[ENDED] = (struct pollfd){.fd = ended, .events = POLLIN};
    if (ended >= 0)
        watch(head, watched, end);
    else
        end->error = errno;
    bury(pid, end);
    drain(head, watched, end);
    if (ended >= 0)
        close(ended);
}

/* True in the child. */
static bool run_item(const struct head *head) {
    struct end end = {.number = head->number};
    int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
    int64_t started_ns = now_ns();
    pid_t pid = -1;
    bool made = true;
    for (int which = 0; which < 3 && made; which++) {
        int both[2];
        made = pipe2(both, O_CLOEXEC) == 0;
        if (made) {
            ours[which] = both[0];
            theirs[which] = both[1];
            fcntl(both[0], F_SETFL, O_NONBLOCK);
        }
    }
    if (made && (pid = fork()) == 0) {
        become_item(head, theirs[OUT], theirs[ERR], theirs[ANSWER]);
        return true;
    }
    end.error = pid < 0 ? errno : 0;
    for (int which = 0; which < 3; which++)
        if (theirs[which] >= 0)
            close(theirs[which]);
    if (pid > 0) {
        send_frame(FRAME_BEGUN, &head->number, sizeof head->number);
        see_through(head, pid, ours, &end);
    }
    for (int which = 0; which < 3; which++)
        if (ours[which] >= 0)
            close(ours[which]);
    forget_signals();
    end.left = (files_are_gone() ? 0 : LEFT_FILES) | (ipc_is_gone() ? 0 : LEFT_IPC) |
               (settings_are_the_same() ? 0 : LEFT_LIMITS) | (sockets_are_gone() ? 0 : LEFT_SOCKETS);
    end.wall_us = (uint64_t)(now_ns() - started_ns) / 1000;
    send_frame(FRAME_END, &end, sizeof end);
    return false;
}

static bool prepare(void) {
    sigset_t all;
    buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED || madvise(buffer, BUFFER_BYTES, MADV_DONTFORK) < 0)
        return false;
    sigfillset(&all);
    read_settings(&settings);
    sockets_fd = open("/proc/self/net/sockstat", O_RDONLY | O_CLOEXEC);
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 &&
           signal(SIGCHLD, SIG_DFL) != SIG_ERR && sigprocmask(SIG_SETMASK, &all, &mask_before) == 0 &&
           remember_directories();
}

/* Returns in the child of each item, and says how long its request is; in the runner it never returns. `said`, `length`
 * are what it tells the engine first: that it is ready. One thread only: others would not be there after a fork. */
EXPORTED void casemate_runner(const unsigned char *said, const int *length, int *size) {
    struct head head;
    if (!prepare())
        _exit(1);
    send_frame(FRAME_READY, said, (uint32_t)*length);
    while (read_all(REQUEST_FD, &head, sizeof head)) {
        if (run_item(&head)) {
            *size = (int)request_bytes;
            return;
        }
    }
    _exit(0);
}
