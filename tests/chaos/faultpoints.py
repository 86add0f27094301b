"""Faults between two lines of a real service, brought in as its extension: nothing in the product knows of them.

    <folder>/worker.after.queue.finish_job       armed, with a signal's number: the next worker that comes there gets it
    <folder>/worker.after.queue.finish_job.4711  process 4711 has got it

A fault strikes once: only the process that renames the file is struck.
"""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tidemill.chassis.service import Extension, Frame
from tidemill.shared.catalog import Service

FOLDER = "CHAOS_FAULTS"
_NAMED = re.compile(r"\b(?:queue|bus|audit)\.\w+(?=\s*\()")
"""What a statement calls, or for the audit log: what it inserts into."""

Statement = Callable[..., Awaitable[Any]]


def install(site: Path) -> None:
    """Make the extension a distribution in the folder `site`, which then belongs into PYTHONPATH."""
    info = site / "tidemill_faultpoints-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: tidemill-faultpoints\nVersion: 1.0\n")
    points = (f"[tidemill.{each}.extensions]\nfaultpoints = {__name__}:FAULTS_OF_{each.name}\n" for each in Service)
    info.joinpath("entry_points.txt").write_text("".join(points))


def _faults_of(service: Service) -> Extension:
    @asynccontextmanager
    async def opened(frame: Frame) -> AsyncIterator[None]:
        folder = Path(frame.environ[FOLDER])
        for method in ("fetch", "fetchrow", "fetchval", "execute"):
            setattr(frame.database, method, _between(service, folder, getattr(frame.database, method)))
        yield

    return Extension(open=opened)


def _between(service: Service, folder: Path, statement: Statement) -> Statement:
    async def run(query: str, *values: Any) -> Any:
        if (named := _NAMED.search(query)) is None:
            return await statement(query, *values)
        _pass(folder / f"{service}.before.{named[0]}")
        answer = await statement(query, *values)
        _pass(folder / f"{service}.after.{named[0]}")
        return answer

    return run


def _pass(fault: Path) -> None:
    struck = fault.with_name(f"{fault.name}.{os.getpid()}")
    try:
        fault.rename(struck)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), int(struck.read_text()))


FAULTS_OF_API = _faults_of(Service.API)
FAULTS_OF_SCHEDULER = _faults_of(Service.SCHEDULER)
FAULTS_OF_WORKER = _faults_of(Service.WORKER)
FAULTS_OF_AUDIT = _faults_of(Service.AUDIT)
