"""The root folder that jobs see: the system's programs read-only, a minimal /etc and /dev, and nothing else of the host.

/usr /bin /lib* /sbin     the host's, read-only, no set-uid, no devices
the interpreter's prefix  read-only, at its own path (compiled-in paths must keep working)
/env/0, /env/1, ...       the library folders of the environment, read-only
/etc                      written by us: users, names, certificates, time zone, alternatives
/dev                      null zero full random urandom, shm
/proc /tmp /job /dev/shm  empty here; each child mounts its own
"""

# ruff: noqa: PTH  (pathlib would be one more module in the memory of every child)

from __future__ import annotations

import os
from contextlib import suppress

from . import linux

JOB_UID = 1000  # as the job sees itself; outside it is the worker's job uid, or the worker's own user
HOSTNAME = "tidemill-job"

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
EMPTY = ("/tmp", "/job", "/proc", "/run", "/var", "/etc", "/dev", "/dev/shm", "/env")  # noqa: S108 (inside the new root)
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/var/tmp": "/tmp",  # noqa: S108 (inside the new root)
}
COPIED = ["gai.conf", "ld.so.cache", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release", "protocols", "resolv.conf", "services", "timezone", "ssl/openssl.cnf"]
BOUND = ["alternatives", "ca-certificates", "fonts", "pki/ca-trust/extracted", "pki/tls/certs", "ssl/certs"]
WRITTEN = {
    "passwd": f"root:x:0:0:root:/:/bin/false\njob:x:{JOB_UID}:{JOB_UID}:job:/tmp:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "group": f"root:x:0:\njob:x:{JOB_UID}:\nnogroup:x:65534:\n",
    "hostname": f"{HOSTNAME}\n",
}

_READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV


def enter(mountpoint: str, prefix: str, environment: list[str]) -> None:
    """Build that root on `mountpoint` and move this process into it; the host's root is gone afterwards."""
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    flags = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", mountpoint, "tmpfs", flags, "mode=755,size=16m")
    for folder in EMPTY:
        os.mkdir(mountpoint + folder, 0o755)
    for folder in SYSTEM:
        _system(mountpoint, folder)
    if not any(prefix == folder or prefix.startswith(folder + "/") for folder in SYSTEM):
        _bind(prefix, mountpoint + prefix)
    for number, folder in enumerate(environment):
        _bind(folder, f"{mountpoint}/env/{number}")
    _etc(mountpoint + "/etc")
    for device in DEVICES:
        _touch(f"{mountpoint}/dev/{device}")
        linux.bind(f"/dev/{device}", f"{mountpoint}/dev/{device}", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC)
    for link, target in LINKS.items():
        os.symlink(target, mountpoint + link)
    # A new /proc may be mounted in a user namespace only where a complete one is already visible.
    linux.mount("/proc", mountpoint + "/proc", flags=linux.MS_BIND | linux.MS_REC)
    linux.restrict(mountpoint, linux.MOUNT_ATTR_RDONLY)
    linux.pivot_root(mountpoint)


def _system(mountpoint: str, folder: str) -> None:
    if os.path.islink(folder):
        os.symlink(os.readlink(folder), mountpoint + folder)
    elif os.path.isdir(folder):
        _bind(folder, mountpoint + folder)


def _etc(etc: str) -> None:
    for name, text in WRITTEN.items():
        _write(f"{etc}/{name}", text.encode())
    hosts = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n".encode()
    with suppress(OSError), open("/etc/hosts", "rb") as file:
        hosts += file.read()
    _write(f"{etc}/hosts", hosts)
    for name in COPIED:
        # What a host lacks, a job lacks as well.
        with suppress(FileNotFoundError, PermissionError), open(f"/etc/{name}", "rb") as file:
            _write(f"{etc}/{name}", file.read())
    for name in BOUND:
        if os.path.isdir(f"/etc/{name}"):
            _bind(f"/etc/{name}", f"{etc}/{name}")


def _bind(source: str, target: str) -> None:
    os.makedirs(target, 0o755, exist_ok=True)
    linux.bind(source, target, _READ_ONLY)


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o644)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644))
