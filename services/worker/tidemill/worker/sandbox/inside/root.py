"""The root folder that jobs see: the system's programs read-only, a minimal /etc and /dev, nothing else of the host.

/usr /bin /lib* /sbin     the host's, read-only, no set-uid, no devices
the interpreter's prefix  read-only, at its own path (compiled-in paths must keep working)
/env/0, /env/1, ...       the library folders of the environment, read-only
/etc                      written by us: users, names, certificates, time zone, alternatives
/dev                      null zero full random urandom, shm
/shared                   the folder that jobs of one flow share, where there is one; the only one that is written to
/proc /tmp /job /dev/shm  empty here; each child mounts its own
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import linux

JOB_UID = 1000  # as the job sees itself; outside it is the worker's job uid, or the worker's own user
HOSTNAME = "tidemill-job"
SHARED = "/shared"

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
EMPTY = ("/tmp", "/job", "/proc", "/run", "/var", "/etc", "/dev", "/dev/shm", "/env")
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/var/tmp": "/tmp",
}
COPIED = (
    "gai.conf", "ld.so.cache", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release", "protocols",
    "resolv.conf", "services", "timezone", "ssl/openssl.cnf",
)  # fmt: skip
BOUND = ("alternatives", "ca-certificates", "fonts", "pki/ca-trust/extracted", "pki/tls/certs", "ssl/certs")
WRITTEN = {
    "passwd": "root:x:0:0:root:/:/bin/false\n"
    f"job:x:{JOB_UID}:{JOB_UID}:job:/tmp:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": f"root:x:0:\njob:x:{JOB_UID}:\nnogroup:x:65534:\n",
    "hostname": f"{HOSTNAME}\n",
}

_READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV


class Names(NamedTuple):
    """Which names jobs know, and who resolves the others: None is the host's resolver, "" nobody."""

    hosts: dict[str, str]
    resolver: str | None


class Place(NamedTuple):
    """Where the root is built, and what goes into it."""

    mountpoint: str
    prefix: str
    environment: list[str]
    names: Names
    shared: str | None


def enter(place: Place) -> None:
    """Build that root on the mountpoint and move this process into it; the host's root is gone afterwards."""
    mountpoint, prefix, environment, names, shared = place
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", mountpoint, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=16m")
    os.umask(0o022)
    for folder in EMPTY:
        Path(mountpoint + folder).mkdir()
    for folder in SYSTEM:
        _system(Path(folder), mountpoint)
    if not any(Path(prefix).is_relative_to(folder) for folder in SYSTEM):
        _bind(prefix, mountpoint + prefix)
    for number, library in enumerate(environment):
        _bind(library, f"{mountpoint}/env/{number}")
    if shared is not None:
        Path(mountpoint + SHARED).mkdir()
        linux.bind(shared, mountpoint + SHARED, linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV)
    _etc(Path(mountpoint, "etc"), names)
    for device in DEVICES:
        Path(f"{mountpoint}/dev/{device}").touch()
        linux.bind(f"/dev/{device}", f"{mountpoint}/dev/{device}", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC)
    for link, target in LINKS.items():
        Path(mountpoint + link).symlink_to(target)
    # A new /proc may be mounted in a user namespace only where a complete one is already visible.
    linux.mount("/proc", mountpoint + "/proc", flags=linux.MS_BIND | linux.MS_REC)
    linux.restrict(mountpoint, linux.MOUNT_ATTR_RDONLY)
    linux.pivot_root(mountpoint)


def _system(folder: Path, mountpoint: str) -> None:
    if folder.is_symlink():
        Path(f"{mountpoint}{folder}").symlink_to(folder.readlink())
    elif folder.is_dir():
        _bind(str(folder), f"{mountpoint}{folder}")


def _etc(etc: Path, names: Names) -> None:
    for name, text in WRITTEN.items():
        (etc / name).write_text(text)
    hosts = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n"
    with suppress(OSError):
        hosts += _without(names.hosts, Path("/etc/hosts").read_text())
    ours = "".join(f"{address} {name}\n" for name, address in names.hosts.items() if name != address)
    (etc / "hosts").write_text(ours + hosts)
    for name in COPIED:
        # What a host lacks, a job lacks as well.
        with suppress(FileNotFoundError, PermissionError):
            content = Path("/etc", name).read_bytes()
            (etc / name).parent.mkdir(exist_ok=True)
            (etc / name).write_bytes(content)
    if names.resolver is not None:
        _resolve_by(names.resolver, etc / "resolv.conf")
    for name in BOUND:
        if Path("/etc", name).is_dir():
            _bind(f"/etc/{name}", str(etc / name))


def _without(ours: Container[str], hosts: str) -> str:
    """Return a hosts file's lines without these names: on another address of theirs a job could listen."""
    kept = []
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if others := [name for name in names if name not in ours]:
            kept.append(f"{address} {' '.join(others)}\n")
    return "".join(kept)


def _resolve_by(resolver: str, file: Path) -> None:
    """Put another resolver into the host's settings."""
    kept = file.read_text().splitlines() if file.exists() else []
    lines = [line for line in kept if line.split()[:1] in (["search"], ["options"], ["domain"])]
    file.write_text("".join(f"{line}\n" for line in [*([f"nameserver {resolver}"] if resolver else []), *lines]))


def _bind(source: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    linux.bind(source, target, _READ_ONLY)
