"""Tries what an attacker would try who runs code in a replica; needs nothing but Python.

It is sent as text: ``python3 - FUNCTION ARGUMENT…``, and prints JSON: what worked, or for each attempt the error that
refused it, empty when it worked.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CONNECT_S = 2.0
KERNEL_FILES = ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper")
CLONE_NEWUSER = 0x10000000
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")


def writable() -> list[str]:
    """List the folders in which a file can be made, and the kernel's files that can be written."""
    found = []
    for folder, below, _ in os.walk("/"):
        if folder == "/":
            below[:] = [name for name in below if name not in ("proc", "sys")]
        file = Path(folder) / ".intruder"
        try:
            file.touch()
            file.unlink()
        except OSError:
            continue
        found.append(folder)
    return sorted(found + [name for name in KERNEL_FILES if _opens(name)])


def _opens(name: str) -> bool:
    try:
        os.close(os.open(name, os.O_WRONLY))
    except OSError:
        return False
    return True


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def _mount(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    target = folder / "mounted"
    target.mkdir()
    try:
        _checked(libc.mount(b"none", str(target).encode(), b"tmpfs", 0, None))
        _checked(libc.umount(str(target).encode()))
    finally:
        target.rmdir()


def _become_root() -> None:
    os.setresuid(0, 0, 0)


def _device(folder: Path) -> None:
    os.mknod(folder / "device", 0o020600, os.makedev(1, 3))
    (folder / "device").unlink()


def _execute(folder: Path) -> None:
    program = folder / "program"
    shutil.copy("/usr/bin/true", program)
    try:
        program.chmod(0o755)
        subprocess.run([program], check=True)
    finally:
        program.unlink()


def _rename() -> None:
    socket.sethostname(socket.gethostname())


def _namespace() -> None:
    _checked(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER))


def gain(folder: str) -> dict[str, str]:
    """Try to gain rights that the process does not have; files are made in a folder that can be written."""
    place = Path(folder)
    attempts: dict[str, Callable[[], None]] = {
        "become root": _become_root,
        "send raw packets": _raw_socket,
        "mount": lambda: _mount(place),
        "make a device": lambda: _device(place),
        "change the root": lambda: os.chroot("/"),
        "change the host name": _rename,
        "run a program that was brought along": lambda: _execute(place),
        "have a user namespace": _namespace,
    }
    return {name: _refused(attempt) for name, attempt in attempts.items()}


def _refused(attempt: Callable[[], None]) -> str:
    """Try something in a process of its own; return the error's name, or an empty text when it worked."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            attempt()
        except OSError as error:
            os.write(writing, errno.errorcode.get(error.errno or 0, str(error)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        return said.read()


def reach(*targets: str) -> dict[str, str]:
    """Try to connect to ADDRESS:PORT, or to find a socket of the engine."""
    found = {target: _connects(target) for target in targets}
    return found | {name: "" if Path(name).exists() else "ENOENT" for name in SOCKETS}


def _connects(target: str) -> str:
    address, _, port = target.rpartition(":")
    try:
        socket.create_connection((address, int(port)), timeout=CONNECT_S).close()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def ask(*targets: str) -> dict[str, str]:
    """Ask a replica at ADDRESS:PORT whether it is ready, and return what answered, which may be another program."""
    return {target: _answer(target) for target in targets}


def _answer(target: str) -> str:
    address, _, port = target.rpartition(":")
    try:
        with socket.create_connection((address, int(port)), timeout=CONNECT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
