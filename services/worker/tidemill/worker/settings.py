"""What the worker can be told."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tidemill.chassis.settings import doc
from tidemill.shared.script import DEPENDENCY_TAG, Language

_MEBI = 1 << 20


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What it serves, how much at once, and what a job may use."""

    worker_slots: Annotated[int, doc("jobs that run at the same time", ge=1, le=1000)] = os.cpu_count() or 1
    worker_tags: Annotated[tuple[str, ...], doc("the tags whose jobs this worker runs")] = (
        *Language,
        DEPENDENCY_TAG,
    )
    worker_group: Annotated[str, doc("a name for workers of the same kind", pattern="^[a-z0-9-]{1,40}$")] = "default"
    worker_drain: Annotated[timedelta, doc("how long running jobs may go on after SIGTERM")] = timedelta(seconds=10)
    isolation: Annotated[
        Literal["auto", "full", "pod", "reduced"],
        doc(
            "full: namespaces, own root folder, no capabilities, seccomp, limits; pod: the same but for /proc, in "
            "containers that mask it; reduced: Landlock, seccomp, limits; auto: the first of these that this host gives"
        ),
    ] = "auto"
    api_url: Annotated[str, doc("where jobs reach the api, without /api", pattern="^https?://[^ ]+[^/ ]$")] = (
        "http://localhost:8000"
    )
    base_url: Annotated[str | None, doc("the public address, given to jobs as WM_BASE_URL; default API_URL")] = None
    job_network: Annotated[
        Literal["all", "none"],
        doc(
            "all: jobs reach every address but this host's own; none: only the api. "
            "`# network: none` in a script asks for less"
        ),
    ] = "all"
    job_uid: Annotated[int, doc("as root: the user id that jobs run under", ge=1, le=2**31)] = 61184
    job_timeout: Annotated[timedelta, doc("the longest that any job may run")] = timedelta(days=7)
    job_memory: Annotated[
        int, doc("memory of a job in MiB, its files included; without control groups: of each process", ge=16)
    ] = 2048
    job_cpu: Annotated[
        int | None, doc("processor time of a job in percent of one core; needs control groups", ge=1)
    ] = None
    job_processes: Annotated[int, doc("processes of a job", ge=1)] = 256
    job_log: Annotated[int, doc("log of a job in KiB; what goes beyond is dropped, and said so", ge=1)] = 16384
    job_output: Annotated[int, doc("output of a job in MiB; one that writes more is ended", ge=1)] = 1024
    job_result: Annotated[int, doc("result of a job in KiB; one that is larger fails the job", ge=1)] = 16384
    job_disk: Annotated[int, doc("space of a job in /tmp and /job, in MiB each", ge=1)] = 512
    cache: Annotated[Path | None, doc("folder of downloaded and installed packages; default HOME/cache")] = None
    cache_size: Annotated[int, doc("installed packages in MiB, and as much again of downloads", ge=1)] = 10240
    offline: Annotated[bool, doc("install only what has been downloaded before or lies in a folder of wheels")] = False
    install_timeout: Annotated[timedelta, doc("how long resolving or installing packages may take")] = timedelta(
        minutes=10
    )
    resolutions_kept: Annotated[
        timedelta, doc("for how long a script without a lock gets the versions that were found once")
    ] = timedelta(hours=1)
    warm_children: Annotated[
        int, doc("processes of warm scripts that wait for their next job, of all workspaces together; 0: none", ge=0)
    ] = 8
    warm_memory: Annotated[int, doc("memory in MiB that those may hold together; the longest unused end", ge=1)] = 1024
    warm_idle: Annotated[timedelta, doc("how long one of them waits for its next job")] = timedelta(minutes=10)
    idle_children: Annotated[int, doc("sandboxed interpreters kept ready for each workspace", ge=1, le=64)] = 2

    @property
    def job_log_bytes(self) -> int:
        return self.job_log * 1024

    @property
    def job_output_bytes(self) -> int:
        return self.job_output * _MEBI

    @property
    def job_result_bytes(self) -> int:
        return self.job_result * 1024

    @property
    def job_memory_bytes(self) -> int:
        return self.job_memory * _MEBI

    @property
    def cache_size_bytes(self) -> int:
        return self.cache_size * _MEBI

    @property
    def warm_memory_bytes(self) -> int:
        return self.warm_memory * _MEBI

    @property
    def job_disk_bytes(self) -> int:
        return self.job_disk * _MEBI
