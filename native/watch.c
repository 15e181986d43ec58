/* Forbidden system calls that are worth telling of: the filter asks init, which gives each the errno of the plan,
 * counts it, and tells the engine. No answer lets a call go on, and nothing of the caller's memory is read. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOTICE_BYTES 512 /* kernels to come may say more than this one */

static struct watched {
    uint32_t number, error;
    int32_t count, told, tell_at;
} watched[WATCHED_MAX];
static int watched_count;
static uint8_t notice[NOTICE_BYTES] __attribute__((aligned(8)));
static uint8_t reply[NOTICE_BYTES] __attribute__((aligned(8)));

int watch_fd = -1;

/* Pairs of a number and an errno. What makes no sense has an errno that no kernel without notices gives. */
int set_watched(struct cursor *c) {
    uint32_t length;
    const uint8_t *pairs = read_block(c, &length);
    struct seccomp_notif_sizes sizes = {0};
    if (length == 0 || length % 8 != 0 || length / 8 > WATCHED_MAX)
        return errno = EBADMSG, -1;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
        return -1;
    if (sizes.seccomp_notif > NOTICE_BYTES || sizes.seccomp_notif_resp > NOTICE_BYTES)
        return errno = EOPNOTSUPP, -1;
    for (watched_count = 0; watched_count < (int)(length / 8); watched_count++) {
        struct watched *each = &watched[watched_count];
        *each = (struct watched){.tell_at = 1};
        memcpy(&each->number, pairs + 8 * watched_count, 4);
        memcpy(&each->error, pairs + 8 * watched_count + 4, 4);
        if (each->error == 0 || each->error > ERRNO_MAX)
            return errno = EBADMSG, -1;
    }
    return 0;
}

int install_filter(const void *program) {
    bool watches = watched_count > 0;
    unsigned flags = watches ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
    int done = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
    watch_fd = watches ? done : -1;
    return done < 0 ? -1 : 0;
}

/* Init must not wait for the engine, which may not look for long: what finds no room is told the next time. */
static void tell(int control, struct watched *each) {
    const struct report report = {.type = REPORT_TRIED, .id = each->number, .value = each->count};
    if (send(control, &report, sizeof report, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof report)
        each->told = each->count;
}

void tell_watched(int control) {
    for (int i = 0; i < watched_count; i++)
        if (watched[i].count > watched[i].told)
            tell(control, &watched[i]);
}

static uint32_t count_call(int control, uint32_t number) {
    for (int i = 0; i < watched_count; i++) {
        struct watched *each = &watched[i];
        if (each->number != number)
            continue;
        each->count += each->count < INT32_MAX;
        if (each->count == each->tell_at) {
            each->tell_at = each->count > INT32_MAX / 2 ? INT32_MAX : 2 * each->count;
            tell(control, each);
        }
        return each->error;
    }
    return ENOSYS;
}

/* The caller may be gone or interrupted by now: then both calls fail, and nothing is to be done about it. */
void answer_watched(int control) {
    struct seccomp_notif asked;
    memset(notice, 0, sizeof notice);
    if (ioctl(watch_fd, SECCOMP_IOCTL_NOTIF_RECV, notice) < 0)
        return;
    memcpy(&asked, notice, sizeof asked);
    const struct seccomp_notif_resp answer = {
        .id = asked.id, .error = -(int32_t)count_call(control, (uint32_t)asked.data.nr)};
    memcpy(reply, &answer, sizeof answer);
    ioctl(watch_fd, SECCOMP_IOCTL_NOTIF_SEND, reply);
}
