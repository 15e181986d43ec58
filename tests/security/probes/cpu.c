/* Attacks on processor time and clocks. */
#include "probe.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>

#define TIMERS 200

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Burns so much processor time of its own. */
static void burn_for(double wanted) {
    while (seconds(CLOCK_THREAD_CPUTIME_ID) < wanted)
        for (volatile int i = 0; i < 10000; i++)
            continue;
}

static int burn(int argc, char **argv) {
    (void)argc;
    burn_for(atof(argv[1]));
    say_number("burnt", (long)(seconds(CLOCK_PROCESS_CPUTIME_ID) * 1e6));
    return 0;
}

static void *burn_thread(void *unused) {
    for (volatile unsigned long i = 0;; i++)
        continue;
    return unused;
}

static int forever(int argc, char **argv) {
    (void)argc, (void)argv;
    say_number("processor", sched_getcpu());
    burn_thread(NULL);
    return 0;
}

static int threads(int argc, char **argv) {
    (void)argc;
    pthread_t thread;
    for (int i = 1; i < atoi(argv[1]); i++)
        pthread_create(&thread, NULL, burn_thread, NULL);
    say_number("processor", sched_getcpu());
    burn_thread(NULL);
    return 0;
}

/* Workers that burn a little and die, one after the other. */
static int workers(int argc, char **argv) {
    (void)argc, (void)argv;
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) {
            burn_for(0.02);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
}

/* As before, but nobody asks how they died: the kernel throws their books away. */
static int forgotten_workers(int argc, char **argv) {
    signal(SIGCHLD, SIG_IGN);
    return workers(argc, argv);
}

/* Orphans: init gets their books. */
static int orphan_workers(int argc, char **argv) {
    (void)argc, (void)argv;
    for (;;) {
        int ends[2];
        char byte;
        if (pipe(ends) < 0)
            return 1;
        pid_t pid = fork();
        if (pid == 0) {
            if (fork() == 0)
                burn_for(0.02);
            _exit(0);
        }
        close(ends[1]);
        waitpid(pid, NULL, 0);
        if (read(ends[0], &byte, 1) != 0)
            return 1;
        close(ends[0]);
    }
}

static int sleep_long(int argc, char **argv) {
    (void)argc;
    struct timespec long_time = {.tv_sec = 600};
    if (strcmp(argv[1], "sleep") == 0)
        nanosleep(&long_time, NULL);
    else if (strcmp(argv[1], "pause") == 0)
        pause();
    else if (strcmp(argv[1], "select") == 0)
        select(0, NULL, NULL, NULL, NULL);
    else if (strcmp(argv[1], "poll") == 0)
        poll(NULL, 0, -1);
    else if (strcmp(argv[1], "stop") == 0)
        raise(SIGSTOP);
    else
        return 64;
    return 0;
}

static volatile sig_atomic_t warnings;

static void ignore(int number) {
    (void)number;
    warnings++;
}

static int ignore_warnings(int argc, char **argv) {
    (void)argc, (void)argv;
    const int every[] = {SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    for (size_t i = 0; i < sizeof every / sizeof every[0]; i++)
        signal(every[i], ignore);
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_CPU, &unlimited);
    say("ignoring", "OK");
    burn_thread(NULL);
    return 0;
}

static int set_clocks(int argc, char **argv) {
    (void)argc, (void)argv;
    struct timespec long_ago = {.tv_sec = 1};
    struct timeval then = {.tv_sec = 1};
    struct timex change = {.modes = ADJ_FREQUENCY, .freq = 1 << 16}, look = {.modes = 0};
    attempt("clock_settime", clock_settime(CLOCK_REALTIME, &long_ago));
    attempt("settimeofday", settimeofday(&then, NULL));
    attempt("adjtimex", adjtimex(&change));
    attempt("adjtimex to look", adjtimex(&look));
    attempt("clock_adjtime", clock_adjtime(CLOCK_REALTIME, &change));
    attempt("unshare time", unshare(0x80));
    int offsets = open("/proc/self/timens_offsets", O_WRONLY);
    attempt("offsets", offsets < 0 ? -1 : write(offsets, "monotonic 1000 0", 16) < 0 ? -1 : 0);
    attempt("device", open("/dev/rtc0", O_RDWR));
    attempt("alarm clock", timerfd_create(CLOCK_BOOTTIME_ALARM, 0));
    return 0;
}

/* Timers that are always due. */
static int timer_storm(int argc, char **argv) {
    (void)argc, (void)argv;
    struct itimerspec always = {.it_value = {0, 1}, .it_interval = {0, 1}};
    struct itimerval each = {.it_value = {0, 1}, .it_interval = {0, 1}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct pollfd wait[TIMERS];
    say("storm", "OK");
    signal(SIGALRM, ignore);
    signal(SIGPROF, ignore);
    signal(SIGVTALRM, ignore);
    for (int i = 0; i < TIMERS; i++) {
        timer_t timer;
        wait[i] = (struct pollfd){.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), .events = POLLIN};
        timerfd_settime(wait[i].fd, 0, &always, NULL);
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
            timer_settime(timer, 0, &always, NULL);
    }
    setitimer(ITIMER_PROF, &each, NULL);
    while (getppid() >= 0) {
        unsigned long expirations;
        poll(wait, TIMERS, -1);
        for (int i = 0; i < TIMERS; i++)
            if (read(wait[i].fd, &expirations, sizeof expirations) < 0)
                continue;
    }
    return 0;
}

/* Stops itself; a child lets it go on after so many milliseconds. */
static int stop_the_clock(int argc, char **argv) {
    (void)argc;
    struct timespec later = {.tv_sec = atol(argv[1]) / 1000, .tv_nsec = atol(argv[1]) % 1000 * 1000000};
    pid_t parent = getpid();
    if (fork() == 0) {
        nanosleep(&later, NULL);
        kill(parent, SIGCONT);
        _exit(0);
    }
    say("stopping", "OK");
    raise(SIGSTOP);
    say("going on", "OK");
    return 0;
}

/* The parent of a vfork is asleep, uninterruptibly, until its child lets go. */
static int stuck(int argc, char **argv) {
    (void)argc, (void)argv;
    say("stuck", "OK");
    if (vfork() == 0) {
        pause();
        _exit(0);
    }
    return 0;
}

static const struct attack attacks[] = {
    {"burn", burn},
    {"forever", forever},
    {"threads", threads},
    {"workers", workers},
    {"forgotten-workers", forgotten_workers},
    {"orphan-workers", orphan_workers},
    {"sleep-long", sleep_long},
    {"ignore-warnings", ignore_warnings},
    {"set-clocks", set_clocks},
    {"timer-storm", timer_storm},
    {"stop-the-clock", stop_the_clock},
    {"stuck", stuck},
    {NULL, NULL},
};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
