#!/bin/sh
# PID 1 of the User Mode Linux machine that run.sh boots: mounts what a machine has, runs one command, powers off.
# The root is the host's own file system, read-only. UML_OUT (a kernel argument) is the host directory for the exchange:
# `share` lists host directories to mount at their own paths, `command` is what to run, `output` and `status` come back.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp/home LANG=C.UTF-8

power_off() {
    echo o > /proc/sysrq-trigger
    while :; do sleep 1; done
}

mount_hostfs() { # host directory, flags
    mkdir -p "$1" && mount -t hostfs -o "$2,$1" none "$1"
}

load_overlay() { # a module here, which the host's /lib/modules does not have
    python3 - "/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko" <<'PYTHON'
import ctypes, os, sys
FINIT_MODULE = 313
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(FINIT_MODULE, os.open(sys.argv[1], os.O_RDONLY), b"", 0):
    sys.exit(f"overlay.ko: {os.strerror(ctypes.get_errno())}")
PYTHON
}

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
for directory in /tmp /run /var/tmp; do mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $directory; done
mkdir -p /dev/pts /dev/shm /tmp/home
ln -sfn /proc/self/fd /dev/fd
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
hostname uml
ip link set lo up
load_overlay

mount_hostfs "$UML_OUT" rw || power_off
while IFS= read -r directory; do mount_hostfs "$directory" ro; done < "$UML_OUT/share"
/bin/bash "$UML_OUT/command" > "$UML_OUT/output" 2>&1 < /dev/null
echo $? > "$UML_OUT/status"
sync
power_off
