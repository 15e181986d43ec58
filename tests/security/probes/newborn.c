/* Attacks on what init has just forked and that has not yet become its program. Runs in the background of a
 * sandbox that stays, until everything ends. */
#include "probe.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>

#define PIDS_AHEAD 64 /* some come and go while nobody looks */
#define DESCRIPTORS 64
#define STEPS_MAX 100000

static void leave_the_caller(void) {
    if (fork() != 0)
        _exit(0);
    setsid();
    while (getppid() != 1)
        sched_yield();
    say("armed", "OK");
    close_range(0, ~0u, 0);
}

/* Everything that comes into being is stopped as soon as can be, most of it before it is a program. */
static int stop(int argc, char **argv) {
    (void)argc, (void)argv;
    leave_the_caller();
    for (;;)
        kill(-1, SIGSTOP);
    return 0;
}

static bool can_open(pid_t pid, const char *name, int flags) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, flags | O_CLOEXEC);
    return fd >= 0 && close(fd) == 0;
}

static void look_at(int log, pid_t pid, int step, const char *program) {
    char name[32];
    dprintf(log, "%d %s", step, program);
    for (int fd = 5; fd < DESCRIPTORS; fd++) {
        snprintf(name, sizeof name, "fd/%d", fd);
        if (can_open(pid, name, O_WRONLY))
            dprintf(log, " fd/%d", fd);
    }
    dprintf(log, "%s\n", can_open(pid, "mem", O_RDWR) && can_open(pid, "environ", O_RDONLY) ? " mem" : "");
}

/* Lets a stopped process go on in pieces as small as can be, until /proc tells what it is. */
static void step_through(int log, pid_t pid) {
    char path[64], program[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    for (int step = 0; step < STEPS_MAX && kill(pid, 0) == 0; step++) {
        ssize_t length = readlink(path, program, sizeof program - 1);
        if (length > 0) {
            program[length] = 0;
            look_at(log, pid, step, program);
            break;
        }
        kill(pid, SIGCONT);
        if (step % 2 != 0)
            sched_yield();
        kill(pid, SIGSTOP);
    }
    kill(pid, SIGCONT);
}

static int look(int argc, char **argv) {
    (void)argc, (void)argv;
    leave_the_caller();
    int log = open("/work/seen", O_CREAT | O_WRONLY | O_APPEND, 0644);
    for (pid_t next = getpid() + 1;;)
        for (pid_t pid = next; pid < next + PIDS_AHEAD; pid++)
            if (kill(pid, SIGSTOP) == 0) {
                step_through(log, pid);
                next = pid + 1;
            }
    return 0;
}

static const struct attack attacks[] = {{"stop", stop}, {"look", look}, {NULL, NULL}};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
