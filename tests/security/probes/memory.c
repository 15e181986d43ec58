/* Attacks on memory. */
#include "probe.h"

#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

#define MIB (1024L * 1024)
#define GIB (1024L * MIB)
#define MANY 100000
#define REFUSED 3

/* Every page differs, or memory merging could make one of them. */
static void touch(char *start, long bytes) {
    for (long at = 0; at < bytes; at += 4096)
        *(long *)(void *)(start + at) = at + (long)getpid();
}

static char *map_own(long bytes, int flags) {
    void *start = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

/* argument: how many MiB. A refused allocation ends the program with a status of its own. */
static int heap(int argc, char **argv) {
    (void)argc;
    long bytes = atol(argv[1]) * MIB;
    for (long taken = 0; taken < bytes; taken += MIB) {
        char *piece = malloc(MIB);
        if (piece == NULL)
            return say("heap", "ENOMEM"), REFUSED;
        touch(piece, MIB);
    }
    say("heap", "OK");
    return 0;
}

static int shared_pages(int argc, char **argv) {
    (void)argc;
    long bytes = atol(argv[1]) * MIB;
    char *start = map_own(bytes, MAP_SHARED);
    if (start == NULL)
        return say("shared", "ENOMEM"), REFUSED;
    touch(start, bytes);
    say("shared", "OK");
    return 0;
}

static int in_stack(int argc, char **argv) {
    (void)argc, (void)argv;
    volatile char frame[4096];
    frame[0] = (char)argc;
    return argc < 0 ? frame[0] : in_stack(argc + 1, argv) + frame[0];
}

/* A child dies of it, and we end well. */
static int in_child(int argc, char **argv) {
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(shared_pages(argc, argv));
    waitpid(pid, &status, 0);
    say("child", WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : "lives");
    return 0;
}

static int reserve(int argc, char **argv) {
    (void)argc;
    long bytes = atol(argv[1]) * GIB;
    char *none = mmap(NULL, (size_t)bytes, PROT_NONE, MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, -1, 0);
    attempt("no access", none == MAP_FAILED ? -1 : 0);
    char *usable = map_own(bytes, MAP_PRIVATE | MAP_NORESERVE);
    attempt("untouched", usable == NULL ? -1 : 0);
    if (usable != NULL)
        touch(usable, MIB);
    say("still", "OK");
    return 0;
}

/* argument: how many processes, MiB each; all hold on to it. */
static int together(int argc, char **argv) {
    (void)argc;
    long processes = atol(argv[1]);
    for (long i = 0; i < processes; i++)
        if (fork() == 0) {
            char own[] = "together";
            char *arguments[] = {own, argv[2], NULL};
            if (shared_pages(2, arguments) == 0)
                pause();
            _exit(REFUSED);
        }
    while (wait(NULL) > 0)
        continue;
    say("together", "OK");
    return 0;
}

static long sum(const char *start, long bytes) {
    long total = 0;
    for (long at = 0; at < bytes; at += 4096)
        total += start[at];
    return total;
}

/* A heap of so many MiB, and so many children that read or write all of it, then wait for each other. */
static int copy_on_write(int argc, char **argv) {
    (void)argc;
    long bytes = atol(argv[1]) * MIB, children = atol(argv[2]);
    int together[2], ready[2];
    char *start = map_own(bytes, MAP_PRIVATE), byte;
    if (start == NULL || pipe(together) < 0 || pipe(ready) < 0)
        return say("heap", "ENOMEM"), REFUSED;
    touch(start, bytes);
    for (long i = 0; i < children; i++)
        if (fork() == 0) {
            close(together[1]);
            if (strcmp(argv[3], "write") == 0)
                touch(start, bytes);
            else if (sum(start, bytes) < 0)
                _exit(1);
            _exit(write(ready[1], "r", 1) != 1 || read(together[0], &byte, 1) != 0);
        }
    for (long i = 0; i < children; i++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    close(together[1]);
    while (wait(NULL) > 0)
        continue;
    say("children", "OK");
    return 0;
}

static int segments(int argc, char **argv) {
    (void)argc;
    long bytes = atol(argv[1]) * MIB;
    int segment = shmget(4711, (size_t)bytes, IPC_CREAT | 0666);
    attempt("shmget", segment);
    char *start = segment < 0 ? (void *)-1 : shmat(segment, NULL, 0);
    if (start != (void *)-1) {
        touch(start, bytes);
        attempt("detach", shmdt(start));
    }
    attempt("semget", semget(4711, 1, IPC_CREAT | 0666));
    int queue = msgget(4711, IPC_CREAT | 0666);
    attempt("msgget", queue);
    struct {
        long type;
        char text[64];
    } message = {1, "left behind"};
    if (queue >= 0)
        attempt("msgsnd", msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT));
    attempt("mq_open", mq_open("/left", O_CREAT | O_RDWR, 0666, NULL));
    int file = memfd_create("left", 0);
    attempt("memfd", file);
    if (file >= 0)
        attempt("grow", ftruncate(file, bytes));
    return 0;
}

static int look_for_segments(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("shmget", shmget(4711, 0, 0));
    attempt("semget", semget(4711, 0, 0));
    attempt("msgget", msgget(4711, 0));
    attempt("mq_open", mq_open("/left", O_RDONLY));
    attempt("shm_open", open("/dev/shm/left", O_RDONLY));
    return 0;
}

/* argument: how many files of so many MiB, none of them mapped. */
static int memory_files(int argc, char **argv) {
    (void)argc;
    static char block[MIB];
    long files = atol(argv[1]), blocks = atol(argv[2]);
    touch(block, MIB);
    for (long i = 0; i < files; i++) {
        int fd = memfd_create("hidden", 0);
        if (fd < 0)
            return attempt("memfd", -1), REFUSED;
        for (long j = 0; j < blocks; j++)
            if (write(fd, block, MIB) != MIB)
                return attempt("write", -1), REFUSED;
    }
    say("written", "OK");
    return 0;
}

/* arguments: a path, and how many MiB to write to it. */
static int fill_file(int argc, char **argv) {
    (void)argc;
    static char block[MIB];
    int fd = open(argv[1], O_CREAT | O_WRONLY, 0644);
    touch(block, MIB);
    for (long i = 0; i < atol(argv[2]); i++)
        if (write(fd, block, MIB) != MIB)
            return attempt("write", -1), REFUSED;
    say("filled", "OK");
    return 0;
}

/* Segments that are mapped only one at a time, so that no process ever has much. */
static int small_segments(int argc, char **argv) {
    (void)argc;
    long segments = atol(argv[1]), bytes = atol(argv[2]) * MIB;
    for (long i = 0; i < segments; i++) {
        int segment = shmget(IPC_PRIVATE, (size_t)bytes, IPC_CREAT | 0600);
        char *start = segment < 0 ? (void *)-1 : shmat(segment, NULL, 0);
        if (start == (void *)-1)
            return attempt("segment", -1), REFUSED;
        touch(start, bytes);
        shmdt(start);
    }
    say("segments", "OK");
    return 0;
}

static int lock_memory(int argc, char **argv) {
    (void)argc, (void)argv;
    char *page = map_own(4096, MAP_PRIVATE);
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    attempt("raise", setrlimit(RLIMIT_MEMLOCK, &unlimited));
    attempt("mlockall", mlockall(MCL_CURRENT | MCL_FUTURE));
    attempt("mlock", mlock(page, 4096));
    attempt("mlock2", mlock2(page, 4096, MLOCK_ONFAULT));
    attempt("map locked", map_own(MIB, MAP_PRIVATE | MAP_LOCKED) == NULL ? -1 : 0);
    attempt("huge pages", map_own(2 * MIB, MAP_PRIVATE | MAP_HUGETLB) == NULL ? -1 : 0);
    attempt("shm lock", shmctl(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), SHM_LOCK, NULL));
    return 0;
}

static int make_pipe(void) {
    int ends[2];
    return pipe(ends);
}

static int make_socket(void) {
    int ends[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
}

static int make_epoll(void) {
    return epoll_create1(0);
}

static int make_event(void) {
    return eventfd(0, 0);
}

static int make_timer_file(void) {
    return timerfd_create(CLOCK_MONOTONIC, 0);
}

static int make_inotify(void) {
    return inotify_init();
}

static int make_timer(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    return timer_create(CLOCK_MONOTONIC, &event, &timer);
}

static int make_segment(void) {
    return shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
}

static int make_semaphores(void) {
    return semget(IPC_PRIVATE, 100, IPC_CREAT | 0600);
}

static int make_mapping(void) {
    static int protection;
    protection = protection == PROT_READ ? PROT_NONE : PROT_READ;
    return mmap(NULL, 4096, protection, MAP_ANONYMOUS | MAP_SHARED, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* As many of one kind of kernel object as there may be. */
static int exhaust(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*make)(void);
    } kinds[] = {
        {"pipe", make_pipe}, {"socket", make_socket}, {"epoll", make_epoll}, {"event", make_event},
        {"timer file", make_timer_file}, {"inotify", make_inotify}, {"timer", make_timer},
        {"segment", make_segment}, {"semaphores", make_semaphores}, {"mapping", make_mapping},
    };
    (void)argc;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        long made = 0;
        if (strcmp(kinds[i].name, argv[1]) != 0)
            continue;
        while (made < MANY && kinds[i].make() >= 0)
            made++;
        say("then", made < MANY ? strerrorname_np(errno) : "OK");
        say_number("made", made);
    }
    return 0;
}

static int large_pipes(int argc, char **argv) {
    (void)argc, (void)argv;
    long made = 0, enlarged = 0, held = 0;
    static char block[65536];
    int ends[2];
    while (pipe2(ends, O_NONBLOCK) == 0) {
        made++;
        enlarged += fcntl(ends[1], F_SETPIPE_SZ, MIB) >= 0;
        ssize_t length;
        while ((length = write(ends[1], block, sizeof block)) > 0)
            held += length;
    }
    say("then", strerrorname_np(errno));
    say_number("made", made);
    say_number("enlarged", enlarged);
    say_number("held", held);
    return 0;
}

/* Descriptors that are open nowhere but in messages that nobody reads. */
static int flying_descriptors(int argc, char **argv) {
    (void)argc, (void)argv;
    int ends[2];
    long sent = 0;
    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends);
    while (sent < MANY) {
        char control[CMSG_SPACE(sizeof(int))] = "", byte = 'x';
        int fd = eventfd(0, 0);
        struct iovec data = {&byte, 1};
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(ends[0], &message, 0) < 0) {
            /* A full queue: the next pair of sockets, which may itself be sent in a message. */
            if (errno != EAGAIN || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) < 0)
                break;
            continue;
        }
        close(fd);
        sent++;
    }
    say("then", sent < MANY ? strerrorname_np(errno) : "OK");
    say_number("sent", sent);
    return 0;
}

static int stall_faults(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("userfaultfd", syscall(SYS_userfaultfd, 0));
    attempt("user mode only", syscall(SYS_userfaultfd, 1));
    attempt("device", open("/dev/userfaultfd", O_RDWR));
    attempt("fuse", open("/dev/fuse", O_RDWR));
    return 0;
}

static void *churn(void *unused) {
    for (;;) {
        char *start = map_own(64 * MIB, MAP_PRIVATE | MAP_NORESERVE);
        if (start == NULL)
            continue;
        madvise(start, 64 * MIB, MADV_HUGEPAGE);
        touch(start, MIB);
        madvise(start, 64 * MIB, MADV_DONTNEED);
        mprotect(start, 32 * MIB, PROT_NONE);
        munmap(start, 64 * MIB);
    }
    return unused;
}

/* The tables of its memory are never at rest, which whoever looks at them from outside has to wait for. */
static int restless(int argc, char **argv) {
    (void)argc, (void)argv;
    pthread_t thread;
    say("restless", "OK");
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, churn, NULL);
    churn(NULL);
    return 0;
}

static int oom_scores(int argc, char **argv) {
    (void)argc, (void)argv;
    const char *values[] = {"-1000", "-17", "-1", "1000"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY);
        attempt(values[i], fd < 0 ? -1 : write(fd, values[i], strlen(values[i])) < 0 ? -1 : 0);
    }
    int fd = open("/proc/1/oom_score_adj", O_WRONLY);
    attempt("init", fd < 0 ? -1 : write(fd, "1000", 4) < 0 ? -1 : 0);
    return 0;
}

static const struct attack attacks[] = {
    {"heap", heap},
    {"shared", shared_pages},
    {"stack", in_stack},
    {"child", in_child},
    {"reserve", reserve},
    {"together", together},
    {"copy-on-write", copy_on_write},
    {"segments", segments},
    {"look-for-segments", look_for_segments},
    {"memory-files", memory_files},
    {"fill", fill_file},
    {"small-segments", small_segments},
    {"lock", lock_memory},
    {"exhaust", exhaust},
    {"large-pipes", large_pipes},
    {"flying-descriptors", flying_descriptors},
    {"stall-faults", stall_faults},
    {"restless", restless},
    {"oom-scores", oom_scores},
    {NULL, NULL},
};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
