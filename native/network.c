/* The network of a sandbox, from the inside: its namespace is entered, and gets what the plan says. The namespace
 * has nothing but lo; whatever leaves the sandbox leaves it through sockets that are handed to somebody outside. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX_BYTES 4096

static int fail_with(int fd, int error) {
    close(fd);
    return errno = error, -1;
}

/* The end of file instead of a namespace means that the keeper has failed and said so itself. */
int enter_network(int keeper) {
    struct report report;
    int fd, count;
    if (receive(keeper, &report, sizeof report, &fd, 1, &count) <= 0 || count != 1)
        _exit(1);
    int failed = setns(fd, CLONE_NEWNET), error = errno;
    close(fd);
    errno = error;
    return failed;
}

/* Adds up what the kernel has agreed to in one message of its answers; -1 for the first that it has not. */
static int count_agreed(const char *answer, size_t length, uint32_t *agreed) {
    struct nlmsgerr told;
    struct nlmsghdr head;
    while (length >= sizeof head) {
        memcpy(&head, answer, sizeof head);
        if (head.nlmsg_len < sizeof head || head.nlmsg_len > length)
            return errno = EPROTO, -1;
        if (head.nlmsg_type == NLMSG_ERROR) {
            if (head.nlmsg_len < sizeof head + sizeof told)
                return errno = EPROTO, -1;
            memcpy(&told, answer + sizeof head, sizeof told);
            if (told.error != 0)
                return errno = -told.error, -1;
            (*agreed)++;
        }
        size_t step = NLMSG_ALIGN(head.nlmsg_len);
        answer += step < length ? step : length;
        length -= step < length ? step : length;
    }
    return 0;
}

/* The kernel answers while it takes the messages: what has not come by then never does. */
int send_netlink(struct cursor *c) {
    static char answer[ANSWER_MAX_BYTES];
    uint32_t protocol = read_u32(c), wanted = read_u32(c), agreed = 0, length;
    const uint8_t *messages = read_block(c, &length);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)protocol);
    if (fd < 0)
        return -1;
    if (send(fd, messages, length, 0) != (ssize_t)length)
        return fail_with(fd, errno);
    while (agreed < wanted) {
        ssize_t got = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
        if (got <= 0)
            return fail_with(fd, got < 0 && errno != EAGAIN ? errno : EPROTO);
        if (count_agreed(answer, (size_t)got, &agreed) < 0)
            return fail_with(fd, errno);
    }
    return close(fd);
}

static int set_transparent(int fd, sa_family_t family) {
    int on = 1;
    return family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on)
                             : setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof on);
}

/* What its connections hold of the machine's memory no control group of the sandbox counts, and the kernel would let
 * it grow to megabytes for each that nobody reads; the accepted ones inherit this. */
static int bound_buffers(int fd) {
    int size = LISTENER_BUFFER_BYTES;
    return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 ||
           setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) < 0 ? -1 : 0;
}

/* Whoever holds the socket takes what programs of this sandbox send to it, and has no other way in. */
int open_listener(struct cursor *c) {
    uint32_t type = read_u32(c), transparent = read_u32(c), length;
    const uint8_t *bytes = read_block(c, &length);
    struct sockaddr_storage address = {0};
    if ((type != SOCK_STREAM && type != SOCK_DGRAM) || length > sizeof address)
        return errno = EINVAL, -1;
    memcpy(&address, bytes, length);
    sa_family_t family = address.ss_family;
    if (family != AF_INET && family != AF_INET6)
        return errno = EAFNOSUPPORT, -1;
    int fd = socket(family, (int)type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if ((transparent && set_transparent(fd, family) < 0) || bound_buffers(fd) < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 ||
        (type == SOCK_STREAM && listen(fd, LISTEN_BACKLOG) < 0))
        return fail_with(fd, errno);
    return fd;
}
