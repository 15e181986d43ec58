"""The system calls of x86-64 Linux by number, and what a guest may do with each of them.

The list of allowed calls is the policy: a number that stands nowhere here, because it was invented later, is
answered as an old kernel would answer it. Every known call belongs to exactly one group, so that a new line in
the number table forces a decision. Calls whose answer depends on their arguments are decided in `syscall_arguments`.
"""

from __future__ import annotations

from errno import EINVAL, ENOSYS, EPERM
from typing import Final

import msgspec

_RANGES: Final = (
    (
        0,
        """
        read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
        rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise
        shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept
        sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt
        clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock
        fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink
        readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid
        syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups
        setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending
        rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs
        sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
        modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2
        swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
        get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead
        setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr
        lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup
        io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old
        epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create
        timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
        clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open
        mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl
        ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat
        fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
        unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait
        signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2
        epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init
        fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu
        process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
        memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2
        pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq uretprobe uprobe
        """,
    ),
    (
        424,
        """
        pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount
        fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr
        quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease
        futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue
        statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
        removexattrat open_tree_attr file_getattr file_setattr listns rseq_slice_yield
        """,
    ),
)

NUMBERS: Final = {name: first + index for first, names in _RANGES for index, name in enumerate(names.split())}
"""The number of every call that Linux has had on x86-64, up to `rseq_slice_yield` of Linux 7.0."""


class Group(msgspec.Struct, frozen=True):
    """Calls that are answered alike: `errno` is the answer, `None` means that the kernel decides."""

    why: str
    names: tuple[str, ...]
    errno: int | None = None


def _group(why: str, names: str, errno: int | None = None) -> Group:
    return Group(why=why, names=tuple(names.split()), errno=errno)


ALLOWED: Final = (
    _group(
        "Open files and directories; mounts, modes and Landlock decide which.",
        """
        open openat openat2 creat close close_range access faccessat faccessat2 chdir fchdir getcwd umask
        dup dup2 dup3 pipe pipe2 memfd_create
        """,
    ),
    _group(
        "Read and write what is open. copy_file_range only ever joins two regular files.",
        """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek copy_file_range readahead
        fadvise64 fsync fdatasync sync_file_range flock truncate ftruncate fallocate
        """,
    ),
    _group(
        "Look at files and change the tree. Devices need a capability that no guest has; FIFOs do not.",
        """
        stat fstat lstat newfstatat statx statfs fstatfs getdents getdents64 readlink readlinkat rename renameat
        renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat mknod mknodat chmod fchmod fchmodat
        fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
        setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr
        listxattrat removexattr lremovexattr fremovexattr removexattrat
        """,
    ),
    _group(
        "Memory of one's own; RLIMIT_MEMLOCK bounds locking.",
        """
        brk mmap mprotect munmap mremap msync mincore mlock mlock2 mlockall munlock munlockall membarrier
        pkey_mprotect pkey_alloc pkey_free map_shadow_stack mseal
        """,
    ),
    _group(
        "Processes and threads. The kernel issues uretprobe and uprobe itself, in programs that the host traces.",
        """
        fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid
        setsid set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue
        rseq rseq_slice_yield arch_prctl pidfd_open pidfd_send_signal uretprobe uprobe
        """,
    ),
    _group(
        "Signals stay inside the process namespace.",
        """
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
        restart_syscall kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo signalfd signalfd4
        """,
    ),
    _group(
        "Who am I; changing it fails in the kernel, for want of capabilities and of mapped ids.",
        """
        getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid setreuid setregid setresuid setresgid
        setgroups setfsuid setfsgid capget capset
        """,
    ),
    _group(
        "Scheduling within what RLIMIT_NICE and RLIMIT_RTPRIO (both 0) leave.",
        """
        sched_yield getpriority sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_getaffinity ioprio_get getcpu
        """,
    ),
    _group(
        "Read clocks, wait, set timers.",
        """
        time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep times alarm getitimer setitimer
        timer_create timer_settime timer_gettime timer_getoverrun timer_delete
        timerfd_create timerfd_settime timerfd_gettime
        """,
    ),
    _group(
        "Wait for events. inotify is how build tools and servers notice changes.",
        """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
        eventfd eventfd2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
        """,
    ),
    _group(
        "Use sockets; which kinds exist at all is decided where they are made.",
        """
        connect accept accept4 bind listen shutdown getsockname getpeername getsockopt sendto recvfrom sendmsg recvmsg
        sendmmsg recvmmsg
        """,
    ),
    _group(
        "System V and POSIX IPC, private to the IPC namespace.",
        """
        shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
        """,
    ),
    _group("Facts about the machine and limits of one's own.", "uname sysinfo getrlimit getrusage getrandom"),
    _group(
        "A guest may lock itself up further.",
        "landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
)

REFUSED: Final = (
    _group(
        "Mounts and roots, old interface and new: the tree that init built is final.",
        """
        mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
        """,
        EPERM,
    ),
    _group(
        "Lists of mounts and namespaces; libraries fall back on /proc, whose view is masked.",
        "statmount listmount listns",
        ENOSYS,
    ),
    _group("New or other namespaces: the door to most kernel bugs that need no privilege.", "unshare setns", EPERM),
    _group(
        "Its flags lie behind a pointer, which no filter can read; C libraries fall back on clone.", "clone3", ENOSYS
    ),
    _group(
        "Reaching into other processes: their memory, registers, descriptors, identity.",
        """
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp
        """,
        EPERM,
    ),
    _group(
        "Machinery with programs or faults inside the kernel, and a long record of holes.",
        "bpf perf_event_open userfaultfd",
        EPERM,
    ),
    _group(
        "Runs system calls that no filter sees; event loops fall back on epoll.",
        "io_uring_setup io_uring_enter io_uring_register",
        ENOSYS,
    ),
    _group(
        "Kernel AIO draws on one budget of the whole machine (fs.aio-max-nr) that one guest could use up; databases "
        "fall back on threads.",
        "io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel",
        ENOSYS,
    ),
    _group(
        "Keyrings are shared by all with one user id; Kerberos falls back on files.",
        "keyctl add_key request_key",
        ENOSYS,
    ),
    # Dirty Pipe, Copy Fail and Dirty Frag all start the same way: pages of a read-only file are put *by reference*
    # into a pipe or a socket, where a later bug writes to them, and with that to the page cache that every sandbox
    # and the host share. All system calls that do so are closed, also sendfile, which is a splice inside. EINVAL is
    # the answer for file systems without splicing, on which coreutils, libuv and the standard libraries fall back
    # on read and write; copy_file_range stays, because both of its ends are regular files.
    _group("Pages of files by reference into pipes and sockets.", "splice tee vmsplice sendfile", EINVAL),
    _group(
        "Files by handle instead of by path, past every wall made of paths.",
        "name_to_handle_at open_by_handle_at",
        EPERM,
    ),
    _group("Watches whole mounts, and may hold up other processes.", "fanotify_init fanotify_mark", EPERM),
    _group("Tells which pages of shared files others have used.", "cachestat", ENOSYS),
    _group(
        "The machine's own: modules, kernels, swap, quotas, accounting, its log, ports, terminals, power.",
        """
        init_module finit_module delete_module kexec_load kexec_file_load swapon swapoff quotactl quotactl_fd acct
        syslog iopl ioperm vhangup reboot
        """,
        EPERM,
    ),
    _group(
        "The machine's clock and names; reading adjtimex differs from setting it only behind a pointer.",
        "clock_settime settimeofday clock_adjtime adjtimex sethostname setdomainname",
        EPERM,
    ),
    # The launcher pins the sandbox to as many processors as its CPU share needs. That keeps os.cpu_count(), nproc and
    # thread pools truthful also where no cpuset controller exists; a guest that could widen it again would make the
    # number a lie and its noise everybody's.
    _group("Which processors a guest runs on is set before it starts.", "sched_setaffinity", EPERM),
    _group("Priority among all who use the machine's disks.", "ioprio_set", EPERM),
    # All of NUMA is answered as by a kernel without it, reading as well as setting: libnuma asks once whether
    # get_mempolicy exists and then leaves it alone, where a half-closed family makes programs complain.
    _group(
        "Placement of memory, by which a guest could crowd one node.",
        "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
        ENOSYS,
    ),
    _group("Memory that the kernel itself cannot see or move.", "memfd_secret", ENOSYS),
    _group("Segment descriptors, needed by 16-bit programs only.", "modify_ldt", ENOSYS),
    _group("Names the host's security modules.", "lsm_get_self_attr lsm_set_self_attr lsm_list_modules", ENOSYS),
    _group("New form of ioctls that programs fall back on.", "file_getattr file_setattr", ENOSYS),
    # Nothing of a guest outlives its run, so there is nothing to make durable; for real these calls would write out
    # every file system of the host, again and again at the guest's pleasure.
    _group("Done, without doing it: writing out whole file systems.", "sync syncfs", 0),
    _group(
        "Long gone from kernels, or never there on x86-64.",
        """
        uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
        tuxcall security set_thread_area get_thread_area lookup_dcookie epoll_ctl_old epoll_wait_old vserver
        remap_file_pages
        """,
        ENOSYS,
    ),
)

# Of the refused calls those that say something of whoever tries them. Libraries and runtimes try others to find out
# what there is (io_uring, clone3, NUMA, kernel AIO, splice, adjtimex), or in passing (syslog, vhangup, ioprio_set).
WATCHED: Final = _group(
    "Attempts are counted and told; each is answered as before.",
    """
    mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr open_tree_attr
    unshare setns clone ptrace process_vm_readv process_vm_writev pidfd_getfd bpf perf_event_open userfaultfd
    keyctl add_key request_key open_by_handle_at fanotify_init init_module finit_module delete_module
    kexec_load kexec_file_load swapon swapoff acct iopl ioperm reboot
    """,
).names
