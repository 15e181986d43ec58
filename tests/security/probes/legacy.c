/* The other ways into an x86 kernel: int 0x80 (32-bit numbers), x32 (bit 30), and the old vsyscall page. Each in a
 * process of its own, because a kernel without the way answers with a fault. */
#include "probe.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

#define X32_BIT 0x40000000L
#define VSYSCALL_GETTIMEOFDAY 0xffffffffff600000UL

static long low(unsigned number, unsigned a, unsigned b, unsigned c) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "0"((unsigned long)number), "b"((unsigned long)a), "c"((unsigned long)b), "d"((unsigned long)c)
                     : "memory", "r8", "r9", "r10", "r11");
    return (long)(int)result;
}

/* Strings and vectors where 32-bit code can point to them. */
static char *low_memory(void) {
    return mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static long int80_socket(void) {
    return low(359, 38, 5, 0); /* socket(AF_ALG, SOCK_SEQPACKET, 0) */
}

static long int80_socketcall(void) {
    unsigned *vector = (unsigned *)low_memory();
    vector[0] = 38;
    vector[1] = 5;
    return low(102, 1, 0x10000000, 0);
}

static long int80_execve(void) {
    char *page = low_memory();
    strcpy(page, "/bin/true");
    return low(11, 0x10000000, 0, 0);
}

static long int80_getpid(void) {
    return low(20, 0, 0, 0);
}

static long int80_unshare(void) {
    return low(310, 0x10000000, 0, 0);
}

static long x32_getpid(void) {
    return syscall(X32_BIT | SYS_getpid) == -1 ? -errno : 0;
}

static long x32_execve(void) {
    char *argv[] = {"true", NULL};
    return syscall(X32_BIT | 520, "/bin/true", argv, NULL) == -1 ? -errno : 0;
}

static long x32_ptrace(void) {
    return syscall(X32_BIT | 521, 0, 0, 0, 0) == -1 ? -errno : 0;
}

static long x32_socket(void) {
    return syscall(X32_BIT | SYS_socket, 38, 5, 0) == -1 ? -errno : 0;
}

static long vsyscall_time(void) {
    struct timeval now = {0};
    long (*gettimeofday_there)(struct timeval *, void *) = (void *)VSYSCALL_GETTIMEOFDAY;
    return gettimeofday_there(&now, NULL);
}

static const struct way {
    const char *name;
    long (*call)(void);
} ways[] = {
    {"int80 getpid", int80_getpid},
    {"int80 socket", int80_socket},
    {"int80 socketcall", int80_socketcall},
    {"int80 execve", int80_execve},
    {"int80 unshare", int80_unshare},
    {"x32 getpid", x32_getpid},
    {"x32 execve", x32_execve},
    {"x32 ptrace", x32_ptrace},
    {"x32 socket", x32_socket},
    {"vsyscall gettimeofday", vsyscall_time},
};

static void report(const struct way *way) {
    long result = way->call();
    const char *name = result < 0 ? strerrorname_np((int)-result) : NULL;
    if (name != NULL)
        say(way->name, name);
    else
        say_number(way->name, result);
}

int main(void) {
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int status;
        char text[32];
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            report(&ways[i]);
            _exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            return 1;
        if (WIFSIGNALED(status)) {
            snprintf(text, sizeof text, "SIG%s", sigabbrev_np(WTERMSIG(status)));
            say(ways[i].name, text);
        }
    }
    return 0;
}
