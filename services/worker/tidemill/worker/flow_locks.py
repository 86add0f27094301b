"""The locks of the code that stands inside a flow: found one after the other, and filled in where they are missing."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tidemill.shared import flow as flows
from tidemill.shared.flow import RawScript
from tidemill.worker.environments.environments import Environments
from tidemill.worker.environments.failure import NotInstallable
from tidemill.worker.environments.together import Say

_BODIES = ("modules", "default")


class Found(msgspec.Struct, frozen=True):
    """The result of a job that was to find the locks of a flow."""

    updated_flow_value: msgspec.Raw
    locks: dict[str, str]
    """Those that were missing, by module."""


async def find(environments: Environments, value: bytes, say: Say, stop: asyncio.Event) -> Found:
    """Return the flow with all its locks as the indexes have them now; raises NotInstallable, or Stopped."""
    locks: dict[str, str] = {}
    for module in flows.every_module(flows.read(value)):
        code = module.value
        if not isinstance(code, RawScript) or code.lock is not None:
            continue
        say(f"{module.id}: looking for what it needs")
        try:
            locks[module.id] = await environments.lock_of(code.language, code.content, say, stop)
        except NotInstallable as wrong:
            raise NotInstallable(wrong.name, f"{module.id}: {wrong}") from wrong
        pins = [line for line in locks[module.id].splitlines() if "==" in line]
        say(f"{module.id}: {len(pins)} package{'' if len(pins) == 1 else 's'}")
    return Found(msgspec.Raw(filled(value, locks)), locks)


def filled(value: bytes, locks: Mapping[str, str]) -> bytes:
    """Return the value of a flow with these locks, by module."""
    plain = msgspec.json.decode(value)
    for module in _modules(plain):
        if module["id"] in locks:
            module["value"]["lock"] = locks[module["id"]]
    return msgspec.json.encode(plain)


def _modules(flow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("failure_module", "preprocessor_module"):
        if flow.get(name) is not None:
            yield flow[name]
    yield from _inside(flow)


def _inside(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in _BODIES:
        for module in container.get(name) or ():
            yield module
            yield from _inside(module["value"])
    for branch in container.get("branches") or ():
        yield from _inside(branch)
