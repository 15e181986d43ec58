/* Carries out the steps of a plan inside the new namespaces. The first failure is reported with the
 * index of its step and ends the process, and with it, as it is PID 1, everything in the sandbox. */
#define _GNU_SOURCE
#include "casemate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> cannot both be included with every C library. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MOUNT_DETACH 2
#define MOUNT_NOSUID 2ul
#define MOUNT_NODEV 4ul
#define MOUNT_NOEXEC 8ul
#define MOUNT_BIND 4096ul
#define MOUNT_RECURSIVE 16384ul
#define MOUNT_PRIVATE (1ul << 18)
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

#define OVERLAY_OPTIONS_MAX 4096
#define CAPABILITIES_MAX 64

struct build {
    const struct plan *plan;
    int sources[SOURCES_MAX];
    int source_count;
    int root;
    int keeper;
    int devices;
    int exposed_count;
    int *exposed;
    struct rlimit *files;
    uint64_t kept_capabilities;
    unsigned done; /* bit per step kind, for the final check */
};

static int step_source(struct build *b, struct cursor *c) {
    const char *path = read_string(c);
    if (b->source_count == SOURCES_MAX)
        return errno = E2BIG, -1;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return -1;
    b->sources[b->source_count++] = fd;
    return 0;
}

/* No user 0 exists in this namespace, so the kernel's rule that leaving user 0 clears capabilities
 * does not apply; they are needed for the build and dropped by a step of their own. */
static int step_identity(struct build *b) {
    gid_t gid = b->plan->gid_inside;
    uid_t uid = b->plan->uid_inside;
    return setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ? -1 : 0;
}

static int write_all(int fd, const void *bytes, size_t length) {
    ssize_t written = write(fd, bytes, length);
    if (written >= 0 && (size_t)written != length)
        errno = ENOSPC;
    return written >= 0 && (size_t)written == length ? 0 : -1;
}

static int write_file(const char *path, mode_t mode, const void *bytes, size_t length) {
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -1;
    int failed = length > 0 ? write_all(fd, bytes, length) : 0;
    close(fd);
    return failed;
}

static int step_root(struct build *b, struct cursor *c) {
    const char *staging = read_string(c), *options = read_string(c);
    if (mount("none", "/", NULL, MOUNT_RECURSIVE | MOUNT_PRIVATE, NULL) < 0 ||
        mount("tmpfs", staging, "tmpfs", MOUNT_NOSUID | MOUNT_NODEV, options) < 0)
        return -1;
    b->root = open(staging, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return b->root < 0 ? -1 : fchdir(b->root);
}

static int attach(int mount_fd, const char *target) {
    int failed = (int)syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
    int error = errno;
    close(mount_fd);
    errno = error;
    return failed;
}

static int set_attributes(int at, const char *path, unsigned flags, uint64_t attributes) {
    struct mount_attr attr = {.attr_set = attributes};
    return (int)syscall(SYS_mount_setattr, at, path, flags, &attr, sizeof attr);
}

/* The mount gets its attributes while it is still detached: it is never visible without them. */
static int bind_from(int at, const char *path, unsigned flags, const char *target, uint32_t attributes) {
    int tree = (int)syscall(SYS_open_tree, at, path,
                            flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0)
        return -1;
    if (set_attributes(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes) < 0) {
        close(tree);
        return -1;
    }
    return attach(tree, target);
}

static int source_fd(const struct build *b, uint32_t index) {
    if (index >= (uint32_t)b->source_count)
        return errno = EBADF, -1;
    return b->sources[index];
}

/* A device must be the one it claims to be, or a prepared host path could hand in another. */
static int step_bind(struct build *b, struct cursor *c) {
    int fd = source_fd(b, read_u32(c));
    const char *target = read_string(c);
    uint32_t attributes = read_u32(c), device = read_u32(c);
    struct stat status;
    if (fd < 0)
        return -1;
    if (device != 0) {
        if (fstat(fd, &status) < 0)
            return -1;
        if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(device >> 8, device & 0xff))
            return errno = ENODEV, -1;
    }
    return bind_from(fd, "", AT_EMPTY_PATH, target, attributes);
}

static int step_bind_own(struct cursor *c) {
    const char *source = read_string(c), *target = read_string(c);
    return bind_from(AT_FDCWD, source, AT_SYMLINK_NOFOLLOW, target, read_u32(c));
}

struct option {
    const char *name, *value;
};

static int file_system(const char *type, const struct option *options, int count) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        return -1;
    int failed = 0;
    for (int i = 0; i < count && failed == 0; i++)
        failed = (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i].name,
                              options[i].value, 0);
    if (failed == 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        return context;
    int error = errno;
    close(context);
    return errno = error, -1;
}

static int detached_mount(int context, uint32_t attributes) {
    int tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    int error = errno;
    close(context);
    errno = error;
    return tree;
}

/* The lower directory is named "." from inside it, so that no host path appears in mountinfo. */
static int step_overlay(struct build *b, struct cursor *c) {
    char lower[OVERLAY_OPTIONS_MAX];
    int fd = source_fd(b, read_u32(c));
    const char *other = read_string(c), *target = read_string(c);
    uint32_t attributes = read_u32(c);
    int length = snprintf(lower, sizeof lower, ".:%s", other);
    if (length < 0 || (size_t)length >= sizeof lower)
        return errno = ENAMETOOLONG, -1;
    if (fd < 0 || fchdir(fd) < 0)
        return -1;
    const struct option options[] = {{"source", "base"}, {"lowerdir", lower}};
    int context = file_system("overlay", options, 2);
    if (fchdir(b->root) < 0 || context < 0)
        return -1;
    int tree = detached_mount(context, attributes);
    return tree < 0 ? -1 : attach(tree, target);
}

static bool find_step(const uint8_t *bytes, size_t length, uint32_t wanted, struct cursor *found) {
    struct plan plan;
    memcpy(&plan, bytes, sizeof plan);
    struct cursor c = {bytes + sizeof plan, bytes + length, false};
    for (uint32_t i = 0; i < plan.steps; i++) {
        uint32_t kind = read_u32(&c), size;
        const uint8_t *payload = read_block(&c, &size);
        *found = (struct cursor){payload, payload + size, false};
        if (kind == wanted)
            return true;
    }
    return false;
}

/* Of what a plan has no step for, the ordinary. */
struct settings find_settings(const uint8_t *bytes, size_t length) {
    struct settings settings = {.inotify_instances = INOTIFY_INSTANCES_MAX};
    struct cursor c;
    if (find_step(bytes, length, STEP_IDS, &c))
        for (int i = 0; i < ID_RANGES; i++) {
            settings.ids[i].first = read_u32(&c);
            settings.ids[i].count = read_u32(&c);
        }
    if (find_step(bytes, length, STEP_COUNTS, &c)) {
        settings.inotify_instances = read_u32(&c);
        settings.inotify_watches = read_u32(&c);
        settings.namespaces = read_u32(&c);
    }
    return settings;
}

static int make_nodes(int directory, struct cursor *c) {
    uint32_t count = read_u32(c);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = read_string(c);
        uint64_t device = read_u64(c);
        if (mknodat(directory, name, S_IFCHR | 0666, makedev(device >> 8, device & 0xff)) < 0)
            return -1;
    }
    return 0;
}

/* Run by the keeper as the machine's root: nobody else may make device nodes, and they open only on a file
 * system mounted outside of user namespaces. Nodes of the sandbox's own, because locks and watches on the
 * machine's reach every other sandbox. The directory is the sandbox user's, for init to go on with. */
int make_devices(const uint8_t *bytes, size_t length, int *devices) {
    struct plan plan;
    struct cursor c;
    *devices = -1;
    if (!find_step(bytes, length, STEP_DEVICES, &c))
        return 0;
    memcpy(&plan, bytes, sizeof plan);
    read_string(&c);
    uint32_t attributes = read_u32(&c);
    const char *size = read_string(&c), *inodes = read_string(&c);
    const struct option options[] = {
        {"source", "tmpfs"}, {"mode", "0755"}, {"size", size}, {"nr_inodes", inodes}};
    int context = file_system("tmpfs", options, 4);
    int tree = context < 0 ? -1 : detached_mount(context, attributes);
    umask(0);
    if (tree < 0 || make_nodes(tree, &c) < 0 ||
        fchownat(tree, "", plan.uid_outside, plan.gid_outside, AT_EMPTY_PATH) < 0)
        return -1;
    *devices = tree;
    return 0;
}

static int step_devices(struct build *b, struct cursor *c) {
    int tree = b->devices;
    b->devices = -1;
    return tree < 0 ? (errno = EBADF, -1) : attach(tree, read_string(c));
}

static int step_pivot(struct build *b) {
    if (fchdir(b->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MOUNT_DETACH) < 0)
        return -1;
    close(b->root);
    b->root = -1;
    for (int i = 0; i < b->source_count; i++)
        close(b->sources[i]);
    b->source_count = 0;
    return chdir("/");
}

static int step_affinity(struct cursor *c) {
    uint32_t length;
    const uint8_t *bits = read_block(c, &length);
    return syscall(SYS_sched_setaffinity, 0, (size_t)length, bits) < 0 ? -1 : 0;
}

static int keep_for_programs(struct rlimit limit, struct rlimit *files) {
    struct rlimit ours;
    if (getrlimit(RLIMIT_NOFILE, &ours) < 0)
        return -1;
    if (limit.rlim_cur > limit.rlim_max)
        return errno = EINVAL, -1;
    if (limit.rlim_max > ours.rlim_max)
        return errno = EPERM, -1;
    *files = limit;
    return 0;
}

/* That of open files is for the programs, which get it at their start. The kernel compares the sender's with
 * how many descriptors its user has sent that nobody has taken yet, and init has to be able to send when its
 * guests have used up theirs. */
static int step_rlimit(struct build *b, struct cursor *c) {
    uint32_t resource = read_u32(c);
    uint64_t soft = read_u64(c);
    struct rlimit limit = {.rlim_cur = soft, .rlim_max = read_u64(c)};
    if (resource == RLIMIT_NOFILE)
        return keep_for_programs(limit, b->files);
    return setrlimit((__rlimit_resource_t)resource, &limit);
}

static int step_expose(struct build *b, struct cursor *c) {
    if (b->exposed_count == EXPOSED_MAX)
        return errno = E2BIG, -1;
    int fd = open(read_string(c), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    b->exposed[b->exposed_count++] = fd;
    return 0;
}

static int set_capabilities(uint64_t effective, uint64_t inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted = (uint32_t)(effective >> (32 * i));
        data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
    }
    return (int)syscall(SYS_capset, &header, data);
}

static int check_capabilities(uint64_t kept) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        if ((data[i].effective | data[i].permitted | data[i].inheritable) != (uint32_t)(kept >> (32 * i)))
            return errno = EPERM, -1;
    return 0;
}

/* Programs, of users without privilege, get those that are ambient; that can be changed until it is locked. */
static int keep_capabilities(uint64_t kept) {
    uint64_t ours;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    ours = data[0].permitted | (uint64_t)data[1].permitted << 32;
    if (set_capabilities(ours, kept) < 0)
        return -1;
    for (unsigned long capability = 0; capability < CAPABILITIES_MAX; capability++)
        if (kept >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            return -1;
    return 0;
}

static int step_drop_capabilities(const struct build *b) {
    uint64_t kept = b->kept_capabilities;
    unsigned long locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                           SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                           SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    for (unsigned long capability = 0; capability < CAPABILITIES_MAX; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL)
            return -1;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || (kept != 0 && keep_capabilities(kept) < 0) ||
        prctl(PR_SET_SECUREBITS, locked, 0, 0, 0) < 0 || set_capabilities(kept, kept) < 0)
        return -1;
    return check_capabilities(kept);
}

static int landlock_rule(int ruleset, const char *path, uint64_t access) {
    struct landlock_path_beneath_attr rule = {.allowed_access = access};
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return -1;
    int failed = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int error = errno;
    close(rule.parent_fd);
    errno = error;
    return failed;
}

/* Three words: file system, network, scopes. Kernels that know fewer accept zeros for the rest. */
static int step_landlock(struct cursor *c) {
    uint64_t attributes[3] = {read_u64(c), 0, read_u64(c)};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, attributes, sizeof attributes, 0);
    if (ruleset < 0)
        return -1;
    uint32_t flags = read_u32(c), rules = read_u32(c);
    int failed = 0;
    for (uint32_t i = 0; i < rules && failed == 0; i++) {
        const char *path = read_string(c);
        failed = landlock_rule(ruleset, path, read_u64(c));
    }
    if (failed == 0)
        failed = (int)syscall(SYS_landlock_restrict_self, ruleset, flags);
    int error = errno;
    close(ruleset);
    errno = error;
    return failed;
}

static int step_seccomp(struct cursor *c) {
    uint32_t length;
    const uint8_t *program = read_block(c, &length);
    if (length % sizeof(struct sock_filter) != 0 || length / sizeof(struct sock_filter) > BPF_MAXINSNS)
        return errno = EINVAL, -1;
    static struct sock_filter aligned[BPF_MAXINSNS];
    memcpy(aligned, program, length);
    struct sock_fprog filter = {.len = (unsigned short)(length / sizeof(struct sock_filter)),
                                .filter = aligned};
    return install_filter(&filter);
}

static int step_mount_tmpfs(struct cursor *c) {
    const char *target = read_string(c);
    return mount("tmpfs", target, "tmpfs", MOUNT_NOSUID | MOUNT_NODEV, read_string(c));
}

static int step_mount_special(struct cursor *c, const char *type, unsigned long flags) {
    const char *target = read_string(c);
    return mount(type, target, type, MOUNT_NOSUID | MOUNT_NOEXEC | flags, read_string(c));
}

static int step_directory(struct cursor *c) {
    const char *target = read_string(c);
    return mkdir(target, read_u32(c));
}

static int step_file(struct cursor *c) {
    const char *target = read_string(c);
    mode_t mode = read_u32(c);
    uint32_t length;
    const uint8_t *content = read_block(c, &length);
    return write_file(target, mode, content, length);
}

static int step_symlink(struct cursor *c) {
    const char *content = read_string(c);
    return symlink(content, read_string(c));
}

/* One call instead of three: /proc alone needs some thirty covers. */
static int step_cover(struct cursor *c) {
    const char *source = read_string(c);
    return mount(source, read_string(c), NULL, MOUNT_BIND, NULL);
}

static int step_listen(struct build *b, struct cursor *c) {
    if (b->exposed_count == EXPOSED_MAX)
        return errno = E2BIG, -1;
    int fd = open_listener(c);
    if (fd < 0)
        return -1;
    b->exposed[b->exposed_count++] = fd;
    return 0;
}

static int step_hostname(struct cursor *c) {
    const char *name = read_string(c);
    return sethostname(name, strlen(name)) < 0 || setdomainname("", 0) < 0 ? -1 : 0;
}

static int step_read_only(struct cursor *c) {
    const char *target = read_string(c);
    return set_attributes(AT_FDCWD, target, 0, read_u32(c));
}

static int run_step(struct build *b, uint32_t kind, struct cursor *c) {
    switch (kind) {
    case STEP_SOURCE: return step_source(b, c);
    case STEP_IDENTITY: return step_identity(b);
    case STEP_HOSTNAME: return step_hostname(c);
    case STEP_ROOT: return step_root(b, c);
    case STEP_TMPFS: return step_mount_tmpfs(c);
    case STEP_DIRECTORY: return step_directory(c);
    case STEP_FILE: return step_file(c);
    case STEP_SYMLINK: return step_symlink(c);
    case STEP_BIND: return step_bind(b, c);
    case STEP_BIND_OWN: return step_bind_own(c);
    case STEP_COVER: return step_cover(c);
    case STEP_OVERLAY: return step_overlay(b, c);
    case STEP_PROC: return step_mount_special(c, "proc", MOUNT_NODEV);
    case STEP_DEVPTS: return step_mount_special(c, "devpts", 0);
    case STEP_DEVICES: return step_devices(b, c);
    case STEP_PIVOT: return step_pivot(b);
    case STEP_READ_ONLY: return step_read_only(c);
    case STEP_AFFINITY: return step_affinity(c);
    case STEP_RLIMIT: return step_rlimit(b, c);
    case STEP_EXPOSE: return step_expose(b, c);
    case STEP_NETWORK: return enter_network(b->keeper);
    case STEP_NETLINK: return send_netlink(c);
    case STEP_LISTEN: return step_listen(b, c);
    case STEP_DROP_CAPABILITIES: return step_drop_capabilities(b);
    case STEP_NO_NEW_PRIVILEGES: return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    case STEP_LANDLOCK: return step_landlock(c);
    case STEP_IDS:
    case STEP_COUNTS: return 0; /* the keeper's */
    case STEP_WATCH: return set_watched(c);
    case STEP_KEEP_CAPABILITIES: return b->kept_capabilities = read_u64(c), 0;
    default: return step_seccomp(c);
    }
}

/* A plan that leaves out a wall is a mistake of ours: nothing may run behind it. */
static bool is_locked_down(const struct build *b) {
    unsigned needed = 1u << STEP_IDENTITY | 1u << STEP_ROOT | 1u << STEP_PROC | 1u << STEP_READ_ONLY |
                      1u << STEP_PIVOT | 1u << STEP_RLIMIT | 1u << STEP_NETWORK |
                      1u << STEP_DROP_CAPABILITIES | 1u << STEP_NO_NEW_PRIVILEGES | 1u << STEP_SECCOMP;
    return (b->done & needed) == needed;
}

static _Noreturn void die(int control, int32_t step, int32_t error) {
    struct report report = {.type = REPORT_FAILED, .value = step, .error = error};
    send_report(control, &report, NULL, 0);
    _exit(1);
}

int build_sandbox(const uint8_t *bytes, size_t length, int control, int keeper, int devices, int *exposed,
                  struct rlimit *files) {
    struct plan plan;
    memcpy(&plan, bytes, sizeof plan);
    struct build build = {.plan = &plan, .root = -1, .keeper = keeper, .devices = devices, .exposed = exposed, .files = files};
    struct cursor c = {bytes + sizeof plan, bytes + length, false};
    umask(0);
    for (uint32_t i = 0; i < plan.steps; i++) {
        uint32_t kind = read_u32(&c), size;
        const uint8_t *payload = read_block(&c, &size);
        struct cursor inner = {payload, payload + size, false};
        if (run_step(&build, kind, &inner) < 0)
            die(control, (int32_t)i, errno);
        build.done |= 1u << kind;
    }
    if (!is_locked_down(&build))
        die(control, FAILED_LOCKDOWN, EPERM);
    return build.exposed_count;
}
