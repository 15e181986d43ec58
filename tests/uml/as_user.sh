#!/bin/bash
# Inside the machine of run.sh: runs a command as an ordinary user in a delegated cgroup, as systemd would set it up.
# The user owns the directory and the files of delegation, not its limits, and starts in a leaf below it.
set -euo pipefail
uid=$1
shift
delegated=/sys/fs/cgroup/delegated
mkdir -p $delegated
echo "+cpu +memory +pids" > $delegated/cgroup.subtree_control
mkdir -p $delegated/session
chown "$uid:$uid" $delegated/session $delegated/session/cgroup.{procs,threads,subtree_control}
install --directory --owner="$uid" --group="$uid" /tmp/home
echo $$ > $delegated/session/cgroup.procs
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
