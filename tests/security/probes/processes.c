/* Attacks by and on processes. */
#include "probe.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define MANY 100000
#define THREAD_STACK_BYTES 65536

extern char **environ;

static int fork_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    for (;;)
        if (fork() < 0 && getppid() == 0)
            return 1;
}

static void *rest(void *unused) {
    pause();
    return unused;
}

static void *breed(void *unused) {
    pthread_t thread;
    while (getppid() >= 0)
        if (pthread_create(&thread, NULL, breed, NULL) == 0)
            pthread_detach(thread);
    return unused;
}

static int thread_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    breed(NULL);
    return 0;
}

/* How many children fit beside us, and why no more. */
static int count_children(int argc, char **argv) {
    (void)argc, (void)argv;
    long made = 0;
    pid_t pid;
    while (made < MANY && (pid = fork()) >= 0) {
        if (pid == 0)
            pause();
        made++;
    }
    say("then", strerrorname_np(errno));
    say_number("made", made);
    return 0;
}

static int count_threads(int argc, char **argv) {
    (void)argc, (void)argv;
    pthread_attr_t small;
    pthread_t thread;
    long made = 0;
    int error = 0;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, THREAD_STACK_BYTES);
    while (made < MANY && (error = pthread_create(&thread, &small, rest, NULL)) == 0)
        made++;
    say("then", error ? strerrorname_np(error) : "OK");
    say_number("made", made);
    return 0;
}

static int vfork_storm(int argc, char **argv) {
    (void)argc, (void)argv;
    char *command[] = {"true", NULL};
    for (;;) {
        pid_t pid = vfork();
        if (pid == 0) {
            execve("/bin/true", command, environ);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
}

static int daemonize(int argc, char **argv) {
    (void)argc, (void)argv;
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            for (int fd = 0; fd < 3; fd++)
                close(fd);
            prctl(PR_SET_PDEATHSIG, 0);
            while (getppid() >= 0)
                pause();
        }
        _exit(0);
    }
    wait(NULL);
    say("daemon", "OK");
    return 0;
}

static int stop_everybody(int argc, char **argv) {
    (void)argc, (void)argv;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            kill(getpid(), SIGSTOP);
    say("stopping", "OK");
    kill(getpid(), SIGSTOP);
    return 0;
}

static int kill_everybody(int argc, char **argv) {
    (void)argc, (void)argv;
    pid_t child = fork();
    if (child == 0)
        pause();
    attempt("parent", kill(getppid(), SIGKILL));
    attempt("init", kill(1, SIGKILL));
    attempt("init stop", kill(1, SIGSTOP));
    attempt("init hup", kill(1, SIGHUP));
    attempt("thread", (long)syscall(SYS_tgkill, 1, 1, SIGKILL));
    int init = (int)syscall(SYS_pidfd_open, 1, 0);
    attempt("pidfd", syscall(SYS_pidfd_send_signal, init, SIGKILL, NULL, 0));
    attempt("group of init", killpg(1, SIGKILL));
    attempt("everybody", kill(-1, SIGKILL));
    waitpid(child, NULL, 0);
    say("still", "OK");
    return 0;
}

/* Processes of the host by number: here they mean nothing. */
static int kill_numbers(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        attempt(argv[i], kill(atoi(argv[i]), SIGKILL));
    return 0;
}

static int farm_zombies(int argc, char **argv) {
    (void)argc, (void)argv;
    long made = 0;
    pid_t pid;
    while (made < MANY && (pid = fork()) >= 0) {
        if (pid == 0)
            _exit(0);
        made++;
    }
    say("then", strerrorname_np(errno));
    say_number("made", made);
    return 0;
}

/* Zombies that are left to init: it must take every one of them. */
static int leave_orphans(int argc, char **argv) {
    (void)argc;
    long left = 0, wanted = atol(argv[1]);
    while (left < wanted) {
        pid_t pid = fork();
        if (pid == 0) {
            pid_t orphan = fork();
            _exit(orphan < 0);
        }
        int status = 1;
        if (pid > 0)
            waitpid(pid, &status, 0);
        if (status == 0)
            left++;
    }
    say_number("left", left);
    return 0;
}

static int reach_others(int argc, char **argv) {
    char buffer[16];
    for (int i = 1; i < argc; i++) {
        pid_t pid = atoi(argv[i]);
        char what[64];
        struct iovec here = {buffer, sizeof buffer}, there = {(void *)0x400000, sizeof buffer};
        snprintf(what, sizeof what, "attach %d", pid);
        attempt(what, ptrace(PTRACE_ATTACH, pid, NULL, NULL));
        snprintf(what, sizeof what, "seize %d", pid);
        attempt(what, ptrace(PTRACE_SEIZE, pid, NULL, NULL));
        snprintf(what, sizeof what, "read %d", pid);
        attempt(what, process_vm_readv(pid, &here, 1, &there, 1, 0));
        snprintf(what, sizeof what, "write %d", pid);
        attempt(what, process_vm_writev(pid, &here, 1, &there, 1, 0));
    }
    attempt("trace me", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    return 0;
}

static int reach_child(int argc, char **argv) {
    (void)argc;
    char pid[16];
    pid_t child = fork();
    if (child == 0)
        pause();
    snprintf(pid, sizeof pid, "%d", child);
    char *arguments[] = {argv[0], pid, NULL};
    int status = reach_others(2, arguments);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return status;
}

static int priorities(int argc, char **argv) {
    (void)argc, (void)argv;
    struct sched_param highest = {.sched_priority = 99}, lowest = {.sched_priority = 1};
    struct sched_attr {
        unsigned size, policy;
        unsigned long long flags;
        int nice;
        unsigned priority;
        unsigned long long runtime, deadline, period;
    } deadline = {.size = sizeof deadline, .policy = 6, .runtime = 1000000, .deadline = 2000000, .period = 2000000};
    cpu_set_t all, found;
    memset(&all, 0xff, sizeof all);
    attempt("fifo", sched_setscheduler(0, SCHED_FIFO, &highest));
    attempt("round robin", sched_setscheduler(0, SCHED_RR, &lowest));
    attempt("deadline", syscall(SYS_sched_setattr, 0, &deadline, 0));
    attempt("nice", setpriority(PRIO_PROCESS, 0, -20));
    attempt("nice of all", setpriority(PRIO_USER, 0, -1));
    attempt("disks", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
    sched_getaffinity(0, sizeof found, &found);
    int before = CPU_COUNT(&found);
    attempt("processors", sched_setaffinity(0, sizeof all, &all));
    sched_getaffinity(0, sizeof found, &found);
    say("after", CPU_COUNT(&found) == before ? "as before" : "more");
    attempt("idle", sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}));
    return 0;
}

/* Becomes a program that exists in memory only. */
static int exec_memory(int argc, char **argv) {
    (void)argc;
    char buffer[65536], *command[] = {"from-memory", argv[2], NULL};
    int from = open(argv[1], O_RDONLY), to = memfd_create("program", MFD_CLOEXEC);
    ssize_t length;
    if (to < 0)
        return attempt("memory file", -1), 0;
    while ((length = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)length) != length)
            return 1;
    fexecve(to, command, environ);
    attempt("fexecve", -1);
    return 1;
}

/* Becomes a program whose file is gone. */
static int exec_deleted(int argc, char **argv) {
    (void)argc;
    char *command[] = {"deleted", argv[2], NULL};
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    unlink(argv[1]);
    syscall(SYS_execveat, fd, "", command, environ, AT_EMPTY_PATH);
    attempt("execveat", -1);
    return 1;
}

static int confinement(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("unshare", unshare(CLONE_NEWUSER));
    attempt("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    say_number("no new privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    say_number("seccomp", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    return 0;
}

static int dump_core(int argc, char **argv) {
    (void)argc, (void)argv;
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY}, found;
    attempt("unlimited", setrlimit(RLIMIT_CORE, &none));
    getrlimit(RLIMIT_CORE, &found);
    say_number("limit", (long)found.rlim_max);
    const int signals[] = {SIGSEGV, SIGABRT, SIGQUIT, SIGBUS};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
            raise(signals[i]);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        say(sigabbrev_np(signals[i]), !WIFSIGNALED(status) ? "survived" : WCOREDUMP(status) ? "dumped" : "no core");
    }
    raise(SIGABRT);
    return 0;
}

static int become_subreaper(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("subreaper", prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    attempt("no parent death signal", prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
            setsid();
            if (fork() == 0)
                while (getppid() >= 0)
                    pause();
            while (getppid() >= 0)
                pause();
        }
    return 0;
}

static int exec_sizes(int argc, char **argv) {
    (void)argc, (void)argv;
    static char long_word[PATH_MAX * 64], *many[300001];
    char *none[] = {NULL}, *words[] = {"true", long_word, NULL};
    memset(long_word, 'x', sizeof long_word - 1);
    attempt("long word", execve("/bin/true", words, none));
    for (size_t i = 0; i < sizeof many / sizeof many[0] - 1; i++)
        many[i] = "0123456789";
    attempt("many words", execve("/bin/true", many, none));
    attempt("large environment", execve("/bin/true", none, many));
    attempt("no program", execve("", none, none));
    attempt("directory", execve("/usr", none, none));
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        execve("/bin/true", none, none);
        _exit(100 + errno);
    }
    waitpid(pid, &status, 0);
    say_number("no words", WEXITSTATUS(status));
    return 0;
}

static int signal_storm(int argc, char **argv) {
    (void)argc, (void)argv;
    sigset_t blocked;
    long sent = 0;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    while (sent < MANY && sigqueue(getpid(), SIGRTMIN, (union sigval){0}) == 0)
        sent++;
    say("then", sent < MANY ? strerrorname_np(errno) : "OK");
    say_number("sent", sent);
    attempt("init", sigqueue(1, SIGRTMIN, (union sigval){0}));
    return 0;
}

/* The first ids and the most interesting, by every call that could take it. */
static int change_ids(int argc, char **argv) {
    (void)argc;
    static const gid_t groups[] = {0, 27, 1000};
    const unsigned interesting[] = {0, 1, 999, 1001, 65533, 65534, 1900000000, 0x7fffffff, 0x80000000, 0xfffffffe};
    unsigned ids = (unsigned)atol(argv[1]);
    long taken = 0;
    for (unsigned i = 0; i < ids + sizeof interesting / sizeof interesting[0]; i++) {
        unsigned id = i < ids ? i : interesting[i - ids];
        if (id == 1000)
            continue;
        taken += syscall(SYS_setuid, id) == 0;
        taken += syscall(SYS_setresuid, id, id, id) == 0;
        taken += syscall(SYS_setgid, id) == 0;
        taken += syscall(SYS_setresgid, id, -1, -1) == 0;
        taken += syscall(SYS_setfsuid, id) != 1000;
        taken += syscall(SYS_setfsgid, id) != 1000;
    }
    say_number("taken", taken);
    attempt("root", syscall(SYS_setuid, 0));
    attempt("root group", syscall(SYS_setgid, 0));
    attempt("groups", syscall(SYS_setgroups, 3, groups));
    attempt("no groups", syscall(SYS_setgroups, 0, NULL));
    attempt("own", syscall(SYS_setuid, 1000));
    say_number("user", (long)getuid());
    return 0;
}

static void *leave(void *status) {
    syscall(SYS_exit_group, (int)(long)status);
    return NULL;
}

static int exit_from_thread(int argc, char **argv) {
    (void)argc;
    pthread_t thread;
    pthread_create(&thread, NULL, leave, (void *)atol(argv[1]));
    pthread_join(thread, NULL);
    return 1;
}

static int exits_left = 50;

static void exit_again(void) {
    if (exits_left-- > 0)
        atexit(exit_again);
    else
        _exit(77);
}

static int exit_in_exit(int argc, char **argv) {
    (void)argc, (void)argv;
    atexit(exit_again);
    return 3;
}

/* The first thread is gone, the others live on. */
static int lose_first_thread(int argc, char **argv) {
    (void)argc, (void)argv;
    pthread_t thread;
    pthread_create(&thread, NULL, leave, (void *)42L);
    syscall(SYS_exit, 5);
    return 1;
}

static int die(int argc, char **argv) {
    (void)argc;
    int number = atoi(argv[1]);
    signal(number, SIG_DFL);
    kill(getpid(), number);
    return 0;
}

static const struct attack attacks[] = {
    {"fork-bomb", fork_bomb},
    {"thread-bomb", thread_bomb},
    {"count-children", count_children},
    {"count-threads", count_threads},
    {"vfork-storm", vfork_storm},
    {"daemonize", daemonize},
    {"stop-everybody", stop_everybody},
    {"kill-everybody", kill_everybody},
    {"kill-numbers", kill_numbers},
    {"farm-zombies", farm_zombies},
    {"leave-orphans", leave_orphans},
    {"reach-others", reach_others},
    {"reach-child", reach_child},
    {"priorities", priorities},
    {"exec-memory", exec_memory},
    {"exec-deleted", exec_deleted},
    {"confinement", confinement},
    {"dump-core", dump_core},
    {"become-subreaper", become_subreaper},
    {"exec-sizes", exec_sizes},
    {"signal-storm", signal_storm},
    {"change-ids", change_ids},
    {"exit-from-thread", exit_from_thread},
    {"exit-in-exit", exit_in_exit},
    {"lose-first-thread", lose_first_thread},
    {"die", die},
    {NULL, NULL},
};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
