/* For an interpreter that has loaded this as a library: sandboxes whose program is a fork of the interpreter.
 *
 * The keeper, init and the program of each are forks of this process, which waits for plans and does nothing else. */
#define _GNU_SOURCE
#include "casemate.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NAME_BYTES 16

static jmp_buf program;
static struct sigaction dispositions[NSIG];
static char name[NAME_BYTES];

static void become_program(void) {
    longjmp(program, 1);
}

/* The interpreter's handlers are no business of init's: its guests can send it whatever it has a handler for. */
static void keep_state(void) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &dispositions[number]) == 0)
            sigaction(number, &standard, NULL);
    prctl(PR_GET_NAME, name, 0, 0, 0);
}

/* What the interpreter had set up for itself, which init is not to have. */
static int restore_state(void) {
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &dispositions[number], NULL);
    return prctl(PR_SET_NAME, name, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -1 : 0;
}

/* Libraries that count processors have done so by now; to make sandboxes on only one of them would be slow. Those that
 * its control group does not allow, the kernel leaves out. */
static int use_all_processors(void) {
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    return sched_setaffinity(0, sizeof all, &all);
}

/* Returns in each program, once it is inside its sandbox and behind all of its walls: 0, or -1 if it must not go on.
 * In the zygote it never returns. One thread only: the others would not be there after a fork. */
__attribute__((visibility("default"))) int casemate_zygote(int channel) {
    if (!read_oom_score() || use_all_processors() < 0)
        return -1;
    keep_state();
    if (setjmp(program) != 0)
        return restore_state();
    forked_program = become_program;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    while (take_plan(channel, &channel, 1))
        continue;
    _exit(0);
}
