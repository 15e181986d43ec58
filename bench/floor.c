/* The floor under every sandbox with these walls: clones the same seven namespaces, mounts one tmpfs,
 * exits and is reaped. `floor [COUNT]` does it that many times. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES                                                                                     \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static void map_user(uid_t outside) {
    FILE *map = fopen("/proc/self/uid_map", "w");
    if (map == NULL || fprintf(map, "0 %u 1", outside) < 0 || fclose(map) != 0)
        _exit(2);
}

static int once(void) {
    int status = 0;
    uid_t outside = geteuid();
    pid_t pid = (pid_t)syscall(SYS_clone, NAMESPACES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        map_user(outside);
        _exit(mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m") == 0 ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
    for (long i = 0; i < count; i++)
        if (once() != 0)
            return 1;
    return 0;
}
