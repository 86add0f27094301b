"""The tiers of isolation: what is in each, and what is missing here, with its remedy.

| tier | its layers | what it goes without |
|---|---|---|
| full | user, pid, mount, ipc, uts namespaces, own root folder, no capabilities, no-new-privs, seccomp, limits | |
| pod | the same, in a container that masks its /proc | own /proc: the container's processes are listed, not opened |
| reduced | own session, Landlock, seccomp, no-new-privs, limits, not dumpable | namespaces: pids, /dev/shm, networks |

Networks and control groups belong to every tier that can have them; where they can't be had they are missing, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidemill.worker.sandbox import groups
from tidemill.worker.sandbox.settings import Tier

STRICTEST_FIRST: Sequence[Tier] = ("full", "pod", "reduced")
LAYERS: Mapping[Tier, Sequence[str]] = {
    "full": ("user", "pid", "mount", "ipc", "uts", "proc", "root", "no-new-privs", "rlimits"),
    "pod": ("user", "pid", "mount", "ipc", "uts", "root", "no-new-privs", "rlimits"),
    "reduced": ("session", "not-dumpable", "no-new-privs", "rlimits"),
}
LOST: Mapping[Tier, Mapping[str, str]] = {
    "full": {},
    "pod": {
        "own /proc": "let the container have an unmasked /proc (Kubernetes: procMount: Unmasked); until "
        "then jobs can read each other's command lines, in which are the arguments of bash scripts"
    },
    "reduced": {
        "namespaces": "allow user namespaces (kernel.unprivileged_userns_clone=1, user.max_user_namespaces, "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container a seccomp profile with unshare and mount); "
        "until then jobs can read each other's command lines, in which are the arguments of bash scripts",
        "limit of disk space": "allow user namespaces, as above",
    },
}
REMEDIES: Mapping[str, str] = {
    "seccomp": "run on x86_64 or aarch64",
    "landlock": "have Linux 5.13 or newer, booted with lsm=landlock",
    "landlock for signals": "have Linux 6.12 or newer",
    "own network": "install passt or slirp4netns and let the worker open /dev/net/tun: until then jobs whose policy is "
    "all share this host's network",
    **{f"cgroup {controller}": groups.REMEDY for controller in groups.CONTROLLERS},
}


def remedy(tier: Tier, layer: str) -> str:
    return LOST[tier].get(layer) or REMEDIES[layer]
