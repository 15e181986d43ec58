/* Stands between the launcher and the system calls that valgrind does not know and would refuse.
 * What can be done with an older call is done with it; what locks the sandbox (attributes of mounts,
 * Landlock, the system call filter, the limit on descriptors) is left out. Only for watching memory:
 * the walls themselves are tested with the real launcher. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIND_RECURSIVELY (4096ul | 16384ul)
#define FDS_MAX 1024

int mount(const char *, const char *, const char *, unsigned long, const void *);
long __real_syscall(long number, ...);
int __real_setrlimit(int resource, const struct rlimit *limit);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
int __wrap_setrlimit(int resource, const struct rlimit *limit);
int __wrap_setdomainname(const char *name, size_t length);
int __real_ioctl(int fd, unsigned long request, long argument);
int __wrap_ioctl(int fd, unsigned long request, long argument);

static long open_tree(int at, const char *path) {
    return path[0] != 0 ? openat(at, path, O_PATH | O_CLOEXEC) : fcntl(at, F_DUPFD_CLOEXEC, 0);
}

static long move_mount(int fd, const char *target) {
    char source[64];
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    return mount(source, target, "", BIND_RECURSIVELY, NULL);
}

static long close_range_of(long first) {
    for (long fd = first; fd < FDS_MAX; fd++)
        __real_syscall(SYS_close, fd);
    return 0;
}

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
    const struct open_how *how = (const struct open_how *)c;
    switch (number) {
    case SYS_pidfd_open:
    case SYS_landlock_create_ruleset: return eventfd(0, EFD_CLOEXEC);
    case SYS_mount_setattr:
    case SYS_landlock_add_rule:
    case SYS_landlock_restrict_self:
    case SYS_seccomp: return 0;
    case SYS_open_tree: return open_tree((int)a, (const char *)b);
    case SYS_move_mount: return move_mount((int)a, (const char *)d);
    case SYS_openat2: return openat((int)a, (const char *)b, (int)how->flags, (mode_t)how->mode);
    case SYS_close_range: return close_range_of(a);
    default: return __real_syscall(number, a, b, c, d, e, f);
    }
}

int __wrap_setrlimit(int resource, const struct rlimit *limit) {
    return resource == RLIMIT_NOFILE ? 0 : __real_setrlimit(resource, limit);
}

int __wrap_setdomainname(const char *name, size_t length) {
    (void)name;
    (void)length;
    return 0;
}

int __wrap_ioctl(int fd, unsigned long request, long argument) {
    char path[64];
    int number = 0;
    if (request != TIOCGPTPEER)
        return __real_ioctl(fd, request, argument);
    if (ioctl(fd, TIOCGPTN, &number) < 0)
        return -1;
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    return open(path, (int)argument);
}
