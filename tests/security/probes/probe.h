/* What the probes share: one line for each attempt, `what TAB answer`, where the answer is OK, a
 * number, or the name of the errno. */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static inline void say(const char *what, const char *answer) {
    printf("%s\t%s\n", what, answer);
    fflush(stdout);
}

static inline void say_number(const char *what, long number) {
    printf("%s\t%ld\n", what, number);
    fflush(stdout);
}

/* For calls that return -1 and set errno. */
static inline long attempt(const char *what, long result) {
    const char *name = result == -1 ? strerrorname_np(errno) : "OK";
    say(what, name != NULL ? name : "UNKNOWN");
    return result;
}

/* A program is a table of attacks; its first argument says which. */
struct attack {
    const char *name;
    int (*run)(int argc, char **argv);
};

static inline int choose(const struct attack *attacks, int argc, char **argv) {
    for (; argc > 1 && attacks->name != NULL; attacks++)
        if (strcmp(argv[1], attacks->name) == 0)
            return attacks->run(argc - 1, argv + 1);
    fprintf(stderr, "no such attack\n");
    return 64;
}

#endif
