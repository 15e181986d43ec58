/* Attacks on files, mounts and roots. */
#include "probe.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#define TREE_CLONE 1
#define NAME_LENGTH 255
#define PATHS_MAX 32

struct attributes {
    unsigned long long set, clear, propagation, userns;
};

static int remount(int argc, char **argv) {
    (void)argc, (void)argv;
    struct attributes writable = {.clear = 1};
    attempt("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    attempt("remount usr", mount(NULL, "/usr", NULL, MS_REMOUNT, NULL));
    attempt("bind", mount("/usr", "/work", NULL, MS_BIND, NULL));
    attempt("propagation", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL));
    attempt("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/usr", 0, &writable, sizeof writable));
    attempt("umount", umount2("/proc/kallsyms", MNT_DETACH));
    attempt("umount root", umount2("/", MNT_DETACH));
    return 0;
}

static int mount_new(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("tmpfs", mount("tmpfs", "/work", "tmpfs", 0, NULL));
    attempt("proc", mount("proc", "/work", "proc", 0, NULL));
    attempt("overlay", mount("overlay", "/work", "overlay", 0, "lowerdir=/usr:/etc"));
    attempt("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    attempt("fsmount", syscall(SYS_fsmount, 0, 0, 0));
    attempt("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0));
    attempt("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/usr", TREE_CLONE));
    attempt("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/usr", AT_FDCWD, "/work", 0));
    return 0;
}

static void same_root(const char *what, const char *path) {
    struct stat root, other;
    stat("/", &root);
    if (stat(path, &other) < 0)
        say(what, strerrorname_np(errno));
    else
        say(what, root.st_dev == other.st_dev && root.st_ino == other.st_ino ? "inside" : "outside");
}

static int change_root(int argc, char **argv) {
    (void)argc, (void)argv;
    char path[3 * 64 + 1] = "";
    for (int i = 0; i < 64; i++)
        strcat(path, "../");
    int saved = open("/", O_PATH | O_DIRECTORY);
    mkdir("/work/jail", 0755);
    attempt("chroot", chroot("/work/jail"));
    attempt("pivot_root", syscall(SYS_pivot_root, "/work", "/work/jail"));
    attempt("fchdir", fchdir(saved));
    same_root("climb", path);
    same_root("climb by fd", "/proc/self/fd/../../../../../..");
    same_root("own root", "/proc/self/root");
    attempt("umount old root", umount2(".", MNT_DETACH));
    return 0;
}

static int device_nodes(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("memory", mknod("/work/mem", S_IFCHR | 0666, makedev(1, 1)));
    attempt("disk", mknod("/work/disk", S_IFBLK | 0666, makedev(8, 0)));
    attempt("null", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
    attempt("in dev", mknod("/dev/shm/null", S_IFCHR | 0666, makedev(1, 3)));
    /* Overlays mark deleted files by the device 0:0, which anybody may make and nobody can open. */
    mknod("/work/whiteout", S_IFCHR | 0666, makedev(0, 0));
    attempt("open whiteout", open("/work/whiteout", O_RDWR));
    return 0;
}

static int links(int argc, char **argv) {
    (void)argc;
    const char *base = argv[1];
    attempt("link", link(base, "/work/linked"));
    int fd = open(base, O_RDONLY);
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    attempt("link by fd", linkat(AT_FDCWD, proc, AT_FDCWD, "/work/linked", AT_SYMLINK_FOLLOW));
    attempt("link empty path", linkat(fd, "", AT_FDCWD, "/work/linked", AT_EMPTY_PATH));
    attempt("rename", rename(base, "/work/renamed"));
    attempt("chown", chown(base, 1000, 1000));
    attempt("fchown", fchown(fd, 1000, 1000));
    attempt("chmod", chmod(base, 0777));
    attempt("fchmod", fchmod(fd, 0777));
    attempt("times", futimens(fd, NULL));
    return 0;
}

static int handles(int argc, char **argv) {
    (void)argc;
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = 128};
    int id;
    int directory = open("/work", O_RDONLY | O_DIRECTORY);
    attempt("name", name_to_handle_at(AT_FDCWD, argv[1], &handle.head, &id, 0));
    /* The root of most file systems, whatever its type: the guess that escaped from containers before. */
    unsigned int inode = 2;
    handle.head.handle_bytes = 8;
    handle.head.handle_type = 1;
    memcpy(handle.head.f_handle, &inode, sizeof inode);
    attempt("open", open_by_handle_at(directory, &handle.head, O_RDONLY));
    return 0;
}

static int watch_mounts(int argc, char **argv) {
    (void)argc, (void)argv;
    attempt("fanotify", syscall(SYS_fanotify_init, FAN_CLASS_NOTIF, O_RDONLY));
    attempt("fanotify by id", syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY));
    attempt("mark", syscall(SYS_fanotify_mark, 0, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, "/usr"));
    return 0;
}

static int attributes(int argc, char **argv) {
    (void)argc, (void)argv;
    /* Version 2, effective: all capabilities. */
    unsigned char caps[20] = {1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff};
    int fd = open("/work/file", O_CREAT | O_RDWR, 0755), flags = FS_IMMUTABLE_FL;
    struct fsxattr extended = {.fsx_xflags = FS_XFLAG_IMMUTABLE};
    attempt("capability", setxattr("/work/file", "security.capability", caps, sizeof caps, 0));
    attempt("fcapability", fsetxattr(fd, "security.capability", caps, sizeof caps, 0));
    attempt("trusted", setxattr("/work/file", "trusted.overlay.redirect", "/", 1, 0));
    attempt("other", setxattr("/work/file", "security.other", "x", 1, 0));
    attempt("base", setxattr("/usr/bin/true", "user.x", "x", 1, 0));
    attempt("immutable", ioctl(fd, FS_IOC_SETFLAGS, &flags));
    flags = FS_APPEND_FL;
    attempt("append only", ioctl(fd, FS_IOC_SETFLAGS, &flags));
    attempt("xattr immutable", ioctl(fd, FS_IOC_FSSETXATTR, &extended));
    return 0;
}

static int map_base(int argc, char **argv) {
    (void)argc;
    attempt("open for writing", open(argv[1], O_RDWR));
    attempt("truncate", truncate(argv[1], 0));
    int fd = open(argv[1], O_RDONLY);
    void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    attempt("map shared", shared == MAP_FAILED ? -1 : 0);
    shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    attempt("make writable", mprotect(shared, 4096, PROT_READ | PROT_WRITE));
    char *own = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    int memory = open("/proc/self/mem", O_RDWR);
    attempt("own memory", memory);
    attempt("write shared page", pwrite(memory, "GUEST", 5, (off_t)(unsigned long)shared) == 5 ? 0 : -1);
    attempt("write private page", pwrite(memory, "GUEST", 5, (off_t)(unsigned long)own) == 5 ? 0 : -1);
    say("private page", memcmp(own, "GUEST", 5) == 0 ? "changed" : "unchanged");
    char found[5];
    attempt("read", pread(fd, found, 5, 0));
    say("file", memcmp(found, "GUEST", 5) == 0 ? "changed" : "unchanged");
    return 0;
}

/* Empty files until the kernel refuses. */
static int many_files(int argc, char **argv) {
    (void)argc;
    char path[64];
    long made = 0, wanted = atol(argv[1]);
    for (; made < wanted; made++) {
        snprintf(path, sizeof path, "/work/%ld", made);
        int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0644);
        if (fd < 0)
            break;
        close(fd);
    }
    const char *name = made < wanted ? strerrorname_np(errno) : "OK";
    say_number("made", made);
    say("then", name);
    return 0;
}

static int deep_tree(int argc, char **argv) {
    (void)argc;
    char name[NAME_LENGTH + 1] = "";
    memset(name, 'd', (size_t)atol(argv[2]));
    long depth = 0, wanted = atol(argv[1]);
    for (; depth < wanted; depth++)
        if (mkdir(name, 0755) < 0 || chdir(name) < 0)
            break;
    close(open("bottom.txt", O_CREAT | O_WRONLY, 0644));
    say_number("depth", depth);
    return 0;
}

/* Exchanges a regular file and a symbolic link, and a directory and a link, until it is killed. */
static int swap(int argc, char **argv) {
    (void)argc, (void)argv;
    say("swapping", "OK");
    while (getppid() > 0) {
        syscall(SYS_renameat2, AT_FDCWD, "/work/a.txt", AT_FDCWD, "/work/link", RENAME_EXCHANGE);
        syscall(SYS_renameat2, AT_FDCWD, "/work/d", AT_FDCWD, "/work/linked", RENAME_EXCHANGE);
    }
    return 0;
}

static const char *outcome(int result) {
    return result < 0 ? strerrorname_np(errno) : "OK";
}

/* Says everything at the end, when all locks are held. */
static int lock(int argc, char **argv) {
    const char *answers[3][PATHS_MAX];
    for (int i = 1; i < argc && i < PATHS_MAX; i++) {
        int fd = open(argv[i], O_RDONLY);
        struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
        answers[0][i] = outcome(flock(fd, LOCK_EX | LOCK_NB));
        answers[1][i] = outcome(fcntl(fd, F_SETLK, &whole));
        answers[2][i] = outcome(fcntl(fd, F_SETLEASE, F_RDLCK));
    }
    for (int i = 1; i < argc && i < PATHS_MAX; i++)
        printf("flock %s\t%s\nfcntl %s\t%s\nlease %s\t%s\n", argv[i], answers[0][i], argv[i], answers[1][i],
               argv[i], answers[2][i]);
    fflush(stdout);
    return 0;
}

/* Keeps the locks until somebody closes its standard input. */
static int hold_locks(int argc, char **argv) {
    char byte;
    return lock(argc, argv) != 0 || read(0, &byte, 1) < 0;
}

static const struct attack attacks[] = {
    {"remount", remount},
    {"mount", mount_new},
    {"change-root", change_root},
    {"device-nodes", device_nodes},
    {"links", links},
    {"handles", handles},
    {"watch-mounts", watch_mounts},
    {"attributes", attributes},
    {"map-base", map_base},
    {"many-files", many_files},
    {"deep-tree", deep_tree},
    {"swap", swap},
    {"lock", lock},
    {"hold-locks", hold_locks},
    {NULL, NULL},
};

int main(int argc, char **argv) {
    return choose(attacks, argc, argv);
}
