/* Tries watched system calls in ways that could confuse whoever counts them. */
#include "probe.h"
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/wait.h>

#define FLOOD 100000
#define THREADS 4
#define CHILDREN 8
#define INTERRUPTED 2000
#define INTERVAL_US 200

/* How many of so many got another answer than EPERM. */
static long others(long count) {
    long other = 0;
    for (long i = 0; i < count; i++)
        if (syscall(SYS_ptrace, 0, 0, 0, 0) != -1 || errno != EPERM)
            other++;
    return other;
}

static void *flood_part(void *unused) {
    (void)unused;
    return (void *)(intptr_t)others(FLOOD / THREADS);
}

static int flood(int argc, char **argv) {
    pthread_t threads[THREADS];
    long other = 0;
    (void)argc, (void)argv;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, flood_part, NULL) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++) {
        void *found;
        pthread_join(threads[i], &found);
        other += (intptr_t)found;
    }
    say_number("others", other);
    return 0;
}

/* Does not end. */
static int forever(int argc, char **argv) {
    (void)argc, (void)argv;
    say_number("others", others(1000));
    while (others(1000) >= 0)
        continue;
    return 0;
}

static int at_once(int argc, char **argv) {
    (void)argc, (void)argv;
    syscall(SYS_bpf, 0, NULL, 0);
    _exit(0);
}

static bool try_in(pid_t pid) {
    if (pid == 0)
        _exit(syscall(SYS_ptrace, 0, 0, 0, 0) == -1 ? 0 : 1);
    return pid > 0 && waitpid(pid, NULL, 0) == pid;
}

static int children(int argc, char **argv) {
    (void)argc, (void)argv;
    return try_in(fork()) && try_in(vfork()) && try_in(fork()) && try_in(vfork()) ? 0 : 1;
}

static void nothing(int number) {
    (void)number;
}

static int interrupted(int argc, char **argv) {
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, INTERVAL_US}, {0, INTERVAL_US}};
    (void)argc, (void)argv;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    say_number("others", others(INTERRUPTED));
    return 0;
}

/* Whoever is killed while it asks leaves nothing behind. */
static int killed(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < CHILDREN; i++) {
        int ends[2];
        char byte = 0;
        if (pipe(ends) < 0)
            return 1;
        pid_t pid = fork();
        if (pid == 0)
            for (others(1), byte = write(ends[1], "x", 1) == 1;;)
                others(1);
        if (pid < 0 || read(ends[0], &byte, 1) != 1 || kill(pid, SIGKILL) < 0 || waitpid(pid, NULL, 0) != pid)
            return 1;
        close(ends[0]), close(ends[1]);
    }
    say_number("others", others(1));
    return 0;
}

static const struct attack attacks[] = {
    {"flood", flood}, {"forever", forever},         {"at-once", at_once}, {"children", children},
    {"killed", killed}, {"interrupted", interrupted}, {NULL, NULL},
};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
