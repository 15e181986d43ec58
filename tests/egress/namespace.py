"""Run inside a network namespace of its own: prepares it by commands, then hands sockets of it to whoever asks.

`namespace.py FD`: over the socket FD come JSON requests: {"run": [commands]}, {"socket": [family, kind]} and
{"child": true}, whose answer carries the socket to a namespace beside this one, of the same user namespace.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    children = []
    while data := channel.recv(65536):
        request = json.loads(data)
        fds: list[int] = []
        answer: object = os.getpid()
        if "run" in request:
            answer = [run(command) for command in request["run"]]
        elif "socket" in request:
            family, kind, transparent = request["socket"]
            made = socket.socket(family, kind)
            if transparent and family == socket.AF_INET:
                made.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            elif transparent:
                made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            fds = [made.detach()]
        elif "child" in request:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            words = ["unshare", "-n", sys.executable, "-I", str(Path(__file__)), str(theirs.fileno())]
            children.append(subprocess.Popen(words, pass_fds=[theirs.fileno()]))
            theirs.close()
            fds, answer = [ours.detach()], children[-1].pid
        socket.send_fds(channel, [json.dumps(answer).encode()], fds)
        for fd in fds:
            os.close(fd)
    for child in children:
        child.wait()


def run(command: str) -> str:
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{command}: {done.stderr}"


if __name__ == "__main__":
    main()
