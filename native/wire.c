/* Reading with bounds, and messages with descriptors. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint8_t *take(struct cursor *c, size_t length) {
    if (c->bad || (size_t)(c->end - c->at) < length) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *start = c->at;
    c->at += length;
    return start;
}

uint32_t read_u32(struct cursor *c) {
    uint32_t value = 0;
    const uint8_t *bytes = take(c, sizeof value);
    if (bytes != NULL)
        memcpy(&value, bytes, sizeof value);
    return value;
}

uint64_t read_u64(struct cursor *c) {
    uint64_t value = 0;
    const uint8_t *bytes = take(c, sizeof value);
    if (bytes != NULL)
        memcpy(&value, bytes, sizeof value);
    return value;
}

const uint8_t *read_block(struct cursor *c, uint32_t *length) {
    *length = read_u32(c);
    const uint8_t *bytes = take(c, *length);
    if (bytes == NULL)
        *length = 0;
    return bytes;
}

/* A string must end in its NUL and hold no other, or two readers could disagree about it. */
const char *read_string(struct cursor *c) {
    uint32_t length = read_u32(c);
    if (length >= MESSAGE_MAX_BYTES) {
        c->bad = true;
        return "";
    }
    const uint8_t *bytes = take(c, (size_t)length + 1);
    if (bytes == NULL || bytes[length] != 0 || memchr(bytes, 0, length) != NULL) {
        c->bad = true;
        return "";
    }
    return (const char *)bytes;
}

union control_buffer {
    char bytes[CMSG_SPACE(sizeof(int) * PLAN_FDS_MAX)];
    struct cmsghdr alignment;
};

int send_report(int socket_fd, const struct report *report, const int *fds, int count) {
    union control_buffer control;
    struct iovec data = {.iov_base = (void *)(uintptr_t)report, .iov_len = sizeof *report};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    }
    ssize_t sent;
    do
        sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

/* Returns the length of the message, 0 at the end of the connection, -1 with errno. A message that
 * does not fit, or whose descriptors do not, is an error: nothing is ever used in part. */
ssize_t receive(int socket_fd, void *buffer, size_t size, int *fds, int fds_max, int *count) {
    union control_buffer control;
    struct iovec data = {.iov_base = buffer, .iov_len = size};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    *count = 0;
    ssize_t length;
    do
        length = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return -1;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h != NULL; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        int received = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < received; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + (size_t)i * sizeof fd, sizeof fd);
            if (*count < fds_max)
                fds[(*count)++] = fd;
            else
                close(fd);
        }
    }
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        close_all(fds, *count);
        *count = 0;
        errno = EMSGSIZE;
        return -1;
    }
    return length;
}

void close_all(const int *fds, int count) {
    for (int i = 0; i < count; i++)
        close(fds[i]);
}
