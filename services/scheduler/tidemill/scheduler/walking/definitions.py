"""The values of flows, read once: a version never changes, and neither does what came with a request."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from tidemill.chassis.database import Database
from tidemill.scheduler.domain.flow.progress import Progress, Walk
from tidemill.scheduler.store import flows
from tidemill.shared.flow import Body, Flow, Module, RawScript, every_module, modules_of, read

_KEPT_BYTES = 64 << 20


class DefinitionGone(Exception):
    """The flow's value is not there any more."""


class Definition:
    """One flow's value with the locks that were found for it, and its bodies by name."""

    def __init__(self, value: str, locks: str | None) -> None:
        self.flow: Flow = read(value)
        self.locks: Mapping[str, str] = {} if locks is None else msgspec.json.decode(locks, type=dict[str, str])
        self.size = len(value) + len(locks or "")
        self._bodies: dict[str, Sequence[Module]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether no lock is to be found any more."""
        return not any(
            isinstance(each.value, RawScript) and each.value.lock is None and each.id not in self.locks
            for each in every_module(self.flow)
        )

    def walk(self, body: str | None) -> Walk:
        """Return what a job of this body walks through; raises NoSuchBody."""
        name = body or ""
        if name not in self._bodies:
            self._bodies[name] = modules_of(self.flow, Body.parse(body))
        return Walk(flow=self.flow, modules=self._bodies[name], locks=self.locks)


class Definitions:
    """Definitions by the version or the job that they came with, the most recently used ones in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[tuple[str, str], Definition] = OrderedDict()
        self._size = 0

    async def walk(self, progress: Progress) -> Walk:
        """Return what a flow's job walks through; raises DefinitionGone, NoSuchBody and msgspec.MsgspecError."""
        key = (progress.workspace_id, progress.flow_version or str(progress.scope_job))
        definition = self._kept.get(key)
        if definition is None:
            definition = await self._read(progress)
            if progress.flow_version is None or definition.is_complete:
                self._keep(key, definition)
        else:
            self._kept.move_to_end(key)
        return definition.walk(progress.body)

    async def _read(self, progress: Progress) -> Definition:
        if progress.flow_version is not None:
            found = await flows.definition(self._database, progress.workspace_id, int(progress.flow_version))
            if found is None:
                raise DefinitionGone(f"version {progress.flow_version} of the flow {progress.path} is gone")
            return Definition(*found)
        code = await flows.code(self._database, progress.scope_job)
        if code is None:
            raise DefinitionGone("the flow's value is gone")
        return Definition(code, None)

    def _keep(self, key: tuple[str, str], definition: Definition) -> None:
        if key in self._kept:
            # Somebody else has read it meanwhile.
            return
        self._kept[key] = definition
        self._size += definition.size
        while self._size > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size
