/* Pure checks of what arrives, before anything is done: no system call here, so it can be fuzzed. */
#include "casemate.h"

#include <linux/sched.h>
#include <string.h>

/* The keeper makes the seventh, of the network, in every case. */
#define NAMESPACES                                                                                          \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

/* u: u32, q: u64, s: string, b: block, v: u32 count and strings, r: u32 count and (s, q) pairs. */
static const char *const step_shapes[STEP_LAST + 1] = {
    [STEP_SOURCE] = "s",
    [STEP_IDENTITY] = "",
    [STEP_HOSTNAME] = "s",
    [STEP_ROOT] = "ss",
    [STEP_TMPFS] = "ss",
    [STEP_DIRECTORY] = "su",
    [STEP_FILE] = "sub",
    [STEP_SYMLINK] = "ss",
    [STEP_BIND] = "usuu",
    [STEP_BIND_OWN] = "ssu",
    [STEP_COVER] = "ss",
    [STEP_OVERLAY] = "ussu",
    [STEP_PROC] = "ss",
    [STEP_DEVPTS] = "ss",
    [STEP_DEVICES] = "sussr",
    [STEP_PIVOT] = "",
    [STEP_READ_ONLY] = "su",
    [STEP_AFFINITY] = "b",
    [STEP_RLIMIT] = "uqq",
    [STEP_EXPOSE] = "s",
    [STEP_NETWORK] = "",
    [STEP_LISTEN] = "uub",
    [STEP_DROP_CAPABILITIES] = "",
    [STEP_NO_NEW_PRIVILEGES] = "",
    [STEP_LANDLOCK] = "qqur",
    [STEP_SECCOMP] = "b",
    [STEP_IDS] = "uuuu",
    [STEP_COUNTS] = "uuu",
    [STEP_KEEP_CAPABILITIES] = "q",
    [STEP_NETLINK] = "uub",
    [STEP_WATCH] = "b",
};

static const char *const request_shapes[REQUEST_LAST + 1] = {
    [REQUEST_SPAWN] = "uuuusvv",
    [REQUEST_OPEN] = "uuus",
    [REQUEST_MKDIR] = "uuss",
    [REQUEST_SIGNAL] = "uuu",
    [REQUEST_ADOPT] = "uuuuuu",
};

static void skip_strings(struct cursor *c, bool with_number) {
    uint32_t count = read_u32(c);
    if (count > STRINGS_MAX)
        c->bad = true;
    for (uint32_t i = 0; i < count && !c->bad; i++) {
        read_string(c);
        if (with_number)
            read_u64(c);
    }
}

static bool has_shape(struct cursor *c, const char *shape) {
    uint32_t length;
    for (; *shape != 0 && !c->bad; shape++) {
        switch (*shape) {
        case 'u': read_u32(c); break;
        case 'q': read_u64(c); break;
        case 's': read_string(c); break;
        case 'b': read_block(c, &length); break;
        case 'v': skip_strings(c, false); break;
        default: skip_strings(c, true); break;
        }
    }
    return !c->bad && c->at == c->end;
}

/* Whatever else a plan says: its sandbox has every namespace of its own, shares nothing else with the
 * launcher, and nobody in it is called root. */
static bool is_apart(const struct plan *plan) {
    return plan->clone_flags == NAMESPACES && plan->uid_inside != 0 && plan->gid_inside != 0;
}

static bool header_is_valid(const struct plan *plan, size_t length, int fds) {
    uint32_t wanted = 1 + plan->cgroup_fds + plan->devices_fds;
    return plan->magic == PLAN_MAGIC && plan->version == PLAN_VERSION && plan->length == length &&
           plan->steps <= PLAN_STEPS_MAX && plan->cgroup_kind <= CGROUP_INTO &&
           plan->cgroup_fds < PLAN_FDS_MAX && plan->devices_fds <= 1 && fds >= 0 && wanted == (uint32_t)fds &&
           (plan->cgroup_kind != CGROUP_INTO || plan->cgroup_fds == 1) && is_apart(plan);
}

bool plan_is_valid(const uint8_t *bytes, size_t length, int fds) {
    struct plan plan;
    if (length < sizeof plan || length > PLAN_MAX_BYTES)
        return false;
    memcpy(&plan, bytes, sizeof plan);
    if (!header_is_valid(&plan, length, fds))
        return false;
    struct cursor c = {bytes + sizeof plan, bytes + length, false};
    for (uint32_t i = 0; i < plan.steps; i++) {
        uint32_t kind = read_u32(&c), size;
        const uint8_t *payload = read_block(&c, &size);
        if (c.bad || kind < 1 || kind > STEP_LAST)
            return false;
        struct cursor inner = {payload, payload + size, false};
        if (!has_shape(&inner, step_shapes[kind]))
            return false;
    }
    return !c.bad && c.at == c.end;
}

bool request_is_valid(const uint8_t *bytes, size_t length) {
    struct cursor c = {bytes, bytes + length, false};
    uint32_t kind = read_u32(&c);
    return !c.bad && kind >= 1 && kind <= REQUEST_LAST && has_shape(&c, request_shapes[kind]);
}
