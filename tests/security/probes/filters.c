/* A guest's own seccomp filters, prctl and Landlock: they may tighten and never loosen. */
#include "probe.h"
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define FILTERS 32
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static struct sock_filter allow_all[] = {ALLOW};
static struct sock_filter refuse_getppid[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
    ALLOW,
};

static long install(struct sock_filter *filter, unsigned short count, unsigned flags) {
    struct sock_fprog program = {.len = count, .filter = filter};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void still_closed(const char *what) {
    char name[64];
    snprintf(name, sizeof name, "%s unshare", what);
    attempt(name, unshare(CLONE_NEWUSER));
    snprintf(name, sizeof name, "%s socket", what);
    attempt(name, socket(AF_VSOCK, SOCK_STREAM, 0));
    snprintf(name, sizeof name, "%s io_uring", what);
    attempt(name, syscall(SYS_io_uring_setup, 8, NULL));
}

static int stacked(int argc, char **argv) {
    long failed = 0;
    (void)argc, (void)argv;
    for (int i = 0; i < FILTERS; i++)
        failed |= install(allow_all, 1, 0);
    attempt("filters that allow", failed);
    still_closed("then");
    attempt("filter that refuses", install(refuse_getppid, 4, 0));
    attempt("refused", syscall(SYS_getppid));
    struct sock_fprog program = {.len = 1, .filter = allow_all};
    attempt("by prctl", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    attempt("still refused", syscall(SYS_getppid));
    attempt("disable", prctl(PR_SET_SECCOMP, SECCOMP_MODE_DISABLED, 0));
    still_closed("at last");
    return 0;
}

/* The listener may come with any other flag; its descriptor would be the answer. */
static int listener(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("listener", install(allow_all, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER));
    attempt("listener and log",
            install(allow_all, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_LOG));
    still_closed("then");
    return 0;
}

static int ruleset(int argc, char **argv) {
    (void)argc, (void)argv;
    struct landlock_ruleset_attr all = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE};
    attempt("version", syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION));
    attempt("before", open("/etc/passwd", O_RDONLY));
    long fd = attempt("ruleset", syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0));
    if (fd >= 0)
        attempt("restrict", syscall(SYS_landlock_restrict_self, fd, 0));
    attempt("after", open("/etc/passwd", O_RDONLY));
    still_closed("then");
    return 0;
}

/* The real fallback: threads and processes of the C library where clone3 is refused. */
static int fallback(int argc, char **argv) {
    int status = -1;
    (void)argc, (void)argv;
    attempt("clone3", syscall(SYS_clone3, NULL, 0));
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    attempt("fork", child);
    waitpid(child, &status, 0);
    say_number("status", WEXITSTATUS(status));
    return 0;
}

int main(int argc, char **argv) {
    const struct attack attacks[] = {
        {"stacked", stacked}, {"listener", listener}, {"ruleset", ruleset}, {"fallback", fallback}, {NULL, NULL}};
    return choose(attacks, argc, argv);
}
