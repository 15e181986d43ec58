/* Makes system calls by number, each in a process of its own: NAME=NUMBER[:ARGUMENT]... An argument is a number,
 * `p` (a page of zeros), `s/TEXT` (a string), `m` (the page filled with ones), `f/PATH` (the path, opened for
 * reading) or `w/PATH` (for writing). A call that ends its process answers with the signal. */
#include "probe.h"
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define ARGUMENTS_MAX 6
#define STUCK_S 60

static long argument(char *word, char *zeros, char *ones) {
    int fd = 0;
    switch (word[0]) {
    case 'p': return (long)zeros;
    case 'm': return (long)ones;
    case 's': return (long)(word + 2);
    case 'f': fd = open(word + 2, O_RDONLY); break;
    case 'w': fd = open(word + 2, O_RDWR); break;
    default: return (long)strtoull(word, NULL, 0);
    }
    if (fd < 0)
        fprintf(stderr, "%s: %s\n", word + 2, strerror(errno));
    return fd;
}

static void call(const char *name, char *words) {
    long values[ARGUMENTS_MAX] = {0};
    char *zeros = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *ones = zeros + 4096, *rest = words, *number = strsep(&rest, ":");
    memset(ones, 1, 4096);
    for (int i = 0; rest != NULL && i < ARGUMENTS_MAX; i++)
        values[i] = argument(strsep(&rest, ":"), zeros, ones);
    alarm(STUCK_S);
    errno = 0;
    long got = syscall(strtol(number, NULL, 0), values[0], values[1], values[2], values[3], values[4], values[5]);
    attempt(name, got == -1 ? -1 : 0);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *words = strchr(argv[i], '=');
        *words++ = 0;
        pid_t child = fork();
        if (child < 0)
            return 1;
        if (child == 0) {
            call(argv[i], words);
            _exit(0);
        }
        int status;
        char text[32];
        if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
            snprintf(text, sizeof text, "SIG%s", sigabbrev_np(WTERMSIG(status)));
            say(argv[i], text);
        }
    }
    return 0;
}
