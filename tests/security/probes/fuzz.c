/* Random system calls with arguments that are often right: SEED SECONDS. Each worker lives for some calls and is then
 * replaced, so that one that has closed its descriptors or ended itself costs little. Calls that only stop the
 * fuzzing (signals to others, waiting, leaving) are left out; they have cases of their own. */
#include "probe.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#define CALLS_PER_WORKER 400
#define NUMBERS_MAX 480
#define WORKER_LIMIT_US 30000
#define WORKER_MEMORY_BYTES (64ul << 20)
#define WORKER_FILE_BYTES (1ul << 20)
#define PAGE 4096

static uint64_t state;
static char *page;

static uint64_t any(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static const int left_out[] = {
    SYS_exit,         SYS_exit_group,         SYS_rt_sigreturn,    SYS_pause,       SYS_kill,
    SYS_tkill,        SYS_tgkill,             SYS_rt_sigqueueinfo, SYS_rt_sigsuspend, SYS_rt_tgsigqueueinfo,
    SYS_fork,         SYS_vfork,              SYS_setrlimit,       SYS_prlimit64,   SYS_pidfd_send_signal,
    SYS_setitimer,    SYS_alarm,              SYS_rt_sigtimedwait, SYS_rt_sigprocmask, SYS_setpriority,
    SYS_sched_setscheduler, SYS_sched_setattr, SYS_sched_setparam, SYS_msgrcv, SYS_wait4, SYS_waitid,
};

static int wanted(long number) {
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (left_out[i] == number)
            return 0;
    return 1;
}

static long value(void) {
    static const char *const paths[] = {"/proc/self/mem", "/dev/ptmx", "/work", "/proc/1/root", "/dev/zero", "."};
    static const long edges[] = {0, 1, -1, 0x7fffffff, (long)0x8000000000000000, 4096, 0x10000000, AT_FDCWD, 65536};
    switch (any() % 8) {
    case 0: return (long)(any() % 8);
    case 1: return edges[any() % (sizeof edges / sizeof *edges)];
    case 2: return (long)(page + any() % PAGE);
    case 3: return (long)paths[any() % (sizeof paths / sizeof *paths)];
    case 4: return 1L << any() % 64;
    case 5: return (long)any();
    default: return (long)(any() % 1024);
    }
}

static void scribble(void) {
    for (int i = 0; i < 64; i++)
        ((uint64_t *)page)[any() % (PAGE / 8)] = (uint64_t)value();
}

static void limit(void) {
    const struct rlimit memory = {WORKER_MEMORY_BYTES, WORKER_MEMORY_BYTES};
    const struct rlimit file = {WORKER_FILE_BYTES, WORKER_FILE_BYTES};
    const struct itimerval time = {.it_value = {.tv_usec = WORKER_LIMIT_US}};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_FSIZE, &file);
    setitimer(ITIMER_REAL, &time, NULL);
}

static void work(volatile uint64_t *made) {
    int quiet = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(quiet, fd);
    limit();
    for (int i = 0; i < CALLS_PER_WORKER; i++) {
        long number = (long)(any() % NUMBERS_MAX);
        if (!wanted(number))
            continue;
        scribble();
        long arguments[6];
        for (int j = 0; j < 6; j++)
            arguments[j] = value();
        if (number == SYS_clone)
            arguments[0] = (long)(0x7E020000ul & any()) | SIGCHLD; /* namespaces only; never a shared stack */
        ++*made;
        if (syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]) == 0 &&
            number == SYS_clone)
            break;
    }
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 64;
    state = strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
    time_t end = time(NULL) + atoi(argv[2]);
    page = mmap(NULL, PAGE * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile uint64_t *made = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long workers = 0;
    uint64_t calls = 0;
    while (time(NULL) < end) {
        any();
        *made = 0;
        pid_t child = fork();
        if (child == 0)
            work(made);
        if (child > 0)
            waitpid(child, NULL, 0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
        /* Its calls may have written over the count, too: it never counts more than there can have been. */
        calls += *made < CALLS_PER_WORKER ? *made : CALLS_PER_WORKER;
        workers++;
    }
    say_number("workers", workers);
    say_number("calls", (long)calls);
    return 0;
}
