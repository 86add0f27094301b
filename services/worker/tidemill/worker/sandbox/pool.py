"""The sandbox that the worker sees: give it an execution, get its ending.

    with Sandbox(settings) ── run(key, execution) ──▶ zygote of that key ──▶ idle child ──▶ Ending
                                 (started on demand, least recently used closed beyond max_zygotes)
                                        └─ warm ──▶ child of the job before, if one waits (see warm.py)

Which tier of isolation is in force is found out by trying, the strictest first (see tiers.py); none needs root.
A zygote has a network of its own, from which only the api can be reached, or everything but this host by pasta or
slirp4netns; without such a tool the policy "all" means the host's network. A whole job's memory, processes and share of
the processors are bounded by control groups where we may make them. `isolation` says what is in force and what is not.

When a zygote dies, jobs that ran in it end as "killed", those that had not begun get another child, and the zygote is
started again with back-off. A child that dies idle is replaced. When this process dies, in whatever way, everything
that it started dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tidemill.worker.executors import EXECUTORS
from tidemill.worker.sandbox import answers, shared, tiers
from tidemill.worker.sandbox.child import NeverStartedError
from tidemill.worker.sandbox.execution import Ending, Execution, KeepStep, Order, Room, room
from tidemill.worker.sandbox.groups import Groups
from tidemill.worker.sandbox.inside import linux
from tidemill.worker.sandbox.output import Hear
from tidemill.worker.sandbox.settings import Network, SandboxSettings, SandboxUnavailable, Tier, ZygoteKey
from tidemill.worker.sandbox.warm import Kind, Pair, WarmChildren
from tidemill.worker.sandbox.zygote import Zygote

__all__ = ["Sandbox", "SandboxSettings", "SandboxUnavailable", "ZygoteKey"]

_SCRATCH = "tidemill-sandbox-"

log = logging.getLogger(__name__)

NO_OWN_NETWORK = "the network policy none cannot be had here: no job gets a network of its own"
ATTEMPTS = 3
FIRST_BACKOFF = timedelta(milliseconds=100)
LONGEST_BACKOFF = timedelta(seconds=30)
GRACE = timedelta(seconds=2)  # a zygote this young is still wanted by whoever it was started for


class Sandbox:
    """Owns zygotes and their children, from `async with` to its end."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._zygotes: OrderedDict[ZygoteKey, Zygote] = OrderedDict()
        self._starting: dict[ZygoteKey, asyncio.Task[Zygote]] = {}
        self._failures: dict[ZygoteKey, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.warm = WarmChildren(settings)
        self._closing = False
        self.groups = Groups(settings.job_uid)
        self.uplink: str | None = None
        self._has_own_network = False
        self._lacking: tuple[str, ...] = ()  # layers that the kernel lacks
        self.tier: Tier = "full"

    @property
    def missing(self) -> Sequence[str]:
        """Return the layers that jobs go without here."""
        return (
            *tiers.LOST[self.tier],
            *self._lacking,
            *(() if self.uplink else ("own network",)),
            *(f"cgroup {controller}" for controller in self.groups.missing),
        )

    @property
    def isolation(self) -> str:
        """Return what is in force and what is missing, in one line."""
        layers = [*tiers.LAYERS[self.tier]]
        layers += [] if "seccomp" in self._lacking else ["seccomp"]
        layers += ["landlock"] if self.tier == "reduced" and "landlock" not in self._lacking else []
        layers += ["network"] if self.uplink else []
        layers += [self.groups.layer] if self.groups.layer else []
        gone = f"; missing: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.tier}({' '.join(layers)}){gone}"

    async def __aenter__(self) -> Self:
        """Prove that a child can be had, or raise SandboxUnavailable with one line that says why not."""
        if self._settings.scratch is None:
            _forget_abandoned()
        self._scratch = Path(self._settings.scratch or tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
        (self._scratch / "root").mkdir(exist_ok=True)
        self._scratch.chmod(0o711)  # in the reduced tier jobs have their folders below it
        await self.groups.open()
        try:
            await self._prove()
        except BaseException as error:
            await self.groups.close()
            self._forget_scratch()
            if isinstance(error, NeverStartedError):
                raise SandboxUnavailable(f"no child can be started: {error}") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every process that was started here."""
        self._closing = True
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        await self.warm.close()
        await asyncio.gather(*self._tasks, *(zygote.close() for zygote in self._zygotes.values()))
        self._zygotes.clear()
        await self.groups.close()
        self._forget_scratch()

    async def _prove(self) -> None:
        """Find the strictest tier that this host gives, or prove the one asked for, and say what is missing."""
        wanted = self._settings.isolation
        candidates = tiers.STRICTEST_FIRST if wanted == "auto" else (wanted,)
        for self.tier in candidates:
            try:
                await (self._prove_shared() if self.tier == "reduced" else self._prove_networks())
                break
            except SandboxUnavailable as error:
                if error.layer is None or self.tier == candidates[-1]:
                    raise
                log.warning("a tier of isolation cannot be had", extra={"tier": self.tier, "error": str(error)})
        if self.tier == "reduced" and os.geteuid() != 0:
            linux.prctl(linux.PR_SET_DUMPABLE, 0)  # jobs are of our own uid then
        remedies = "; ".join(f"{layer}: {tiers.remedy(self.tier, layer)}" for layer in self.missing)
        log.log(
            logging.WARNING if remedies else logging.INFO,
            "isolation is in force",
            extra={"tier": self.tier, "isolation": self.isolation, "remedies": remedies},
        )

    async def _prove_networks(self) -> None:
        """Start a child in namespaces, connected by the first tool that works, or by none."""
        for uplink in filter(None, map(shutil.which, self._settings.uplinks)):
            self.uplink = uplink
            try:
                await self._try("all")
            except SandboxUnavailable as error:
                self.uplink = None
                if error.layer != "way out of the network":
                    raise
                log.warning("a network of its own has no way out", extra={"tool": uplink, "error": str(error)})
            else:
                self._has_own_network = True
                return
        try:
            await self._try("none")
            self._has_own_network = True
        except SandboxUnavailable as error:
            if error.layer != "network" or self._settings.network == "none":
                raise
            await self._try("all")

    async def _prove_shared(self) -> None:
        if self._settings.network == "none":
            raise SandboxUnavailable(f"{NO_OWN_NETWORK}: it needs the tier full or pod", "network")
        await self._try("all")

    async def _try(self, network: Network) -> None:
        zygote = await self._start(ZygoteKey(workspace="", interpreter=self._settings.interpreter, network=network))
        self._lacking = zygote.missing
        try:
            zygote.release(await zygote.take(self._settings.room))
        finally:
            await zygote.close()

    async def run(
        self,
        key: ZygoteKey,
        execution: Execution,
        *,
        on_log: Hear,
        on_stream: Hear,
        cancel: asyncio.Event,
        on_step: KeepStep = answers.no_steps,
    ) -> Ending:
        """Run it in a child of this key's zygote and return how it ended.

        Raises SandboxUnavailable when no child can be had: the job has not begun then, and may run elsewhere.
        """
        executor = EXECUTORS.get(execution.language)
        if executor is None:
            return answers.failed("refused", "UnknownLanguage", f"this worker does not run {execution.language}")
        if key.network == "none" and not self._has_own_network:
            return answers.failed("refused", "NetworkPolicyUnavailable", NO_OWN_NETWORK)
        order = self._counted(executor.order(execution))
        order, kind = self._warmth(order, key, execution, on_log)
        encoded = msgspec.json.encode(order)
        for _ in range(ATTEMPTS):
            if cancel.is_set():
                return answers.canceled()
            try:
                pair = await self._child(key, kind, room(execution.limits), cancel)
            except NeverStartedError:
                continue
            try:
                if cancel.is_set():
                    return answers.canceled()
                return await pair.child.run(
                    encoded, execution.limits, on_log, on_stream, cancel, on_step=on_step, warm=order.warm
                )
            except NeverStartedError:
                log.warning("a sandbox child died before its job began", extra={"job_id": execution.job_id})
            finally:
                self._give_back(kind, pair)
        raise SandboxUnavailable(f"{ATTEMPTS} children died before the job began; is the machine out of memory?")

    def share(self, name: str) -> str:
        """Return the folder that jobs share under this name; it is there until `unshare`, and empty at first."""
        return str(shared.make(self._scratch, name, self._settings.job_uid))

    async def unshare(self, name: str) -> None:
        """Remove a folder that was shared, which no job uses any more."""
        folder = str(shared.path(self._scratch, name))
        for key in [key for key in self._zygotes if key.shared == folder]:
            self._failures.pop(key, None)
            await self._zygotes.pop(key).close()
        await asyncio.to_thread(shared.remove, folder)

    def _warmth(self, order: Order, key: ZygoteKey, execution: Execution, on_log: Hear) -> tuple[Order, Kind | None]:
        """Return the order as it can be had here, and whose child it may get when it is warm."""
        if not order.warm:
            return order, None
        if (why_not := self._no_warmth()) is not None:
            on_log(f"[not warm: {why_not}]\n")
            return msgspec.structs.replace(order, warm=False), None
        kind = _kind(key, execution)
        if (spent := self.warm.why_not(kind)) is not None:
            on_log(f"[warm: the process of an earlier job was not kept: {spent}]\n")
        return order, kind

    def _no_warmth(self) -> str | None:
        """Return why no process can be kept for a next job, or None."""
        if self.tier == "reduced":
            return "in the tier reduced nobody could clear up after a job; it has a process of its own"
        if not self._settings.warm_children:
            return "this worker keeps no processes (TIDEMILL_WARM_CHILDREN is 0)"
        return None

    async def _child(self, key: ZygoteKey, kind: Kind | None, wanted: Room, cancel: asyncio.Event) -> Pair:
        """Return the child of an earlier job of this kind, or a new one."""
        if kind is not None and (pair := await self.warm.take(kind)) is not None:
            pair.zygote.resume()
            if self._zygotes.get(key) is pair.zygote:
                self._zygotes.move_to_end(key)
            return pair
        zygote = await self._zygote(key, cancel)
        return Pair(zygote, await zygote.take(wanted))

    def _give_back(self, kind: Kind | None, pair: Pair) -> None:
        if kind is not None and pair.child.clears_up:
            pair.zygote.rest()
            self.warm.keep(kind, pair)
        else:
            pair.zygote.release(pair.child)
        self._close_superfluous()

    def _counted(self, order: Order) -> Order:
        """Leave the counting of processes to the control group, where there is one: it tells what it has refused."""
        if "pids" in self.groups.missing:
            return order
        return msgspec.structs.replace(order, limits=msgspec.structs.replace(order.limits, processes=None))

    async def _zygote(self, key: ZygoteKey, cancel: asyncio.Event) -> Zygote:
        """Return the key's living zygote, started if need be; a cancel ends the waiting."""
        zygote = self._zygotes.get(key)
        if zygote is None or not zygote.alive:
            starting = self._starting.get(key) or self._begin(key)
            canceled = asyncio.ensure_future(cancel.wait())
            try:
                await asyncio.wait({starting, canceled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                canceled.cancel()
            if not starting.done():
                raise NeverStartedError("it was canceled")
            zygote = starting.result()
        if key in self._zygotes:
            self._zygotes.move_to_end(key)
        return zygote

    def _begin(self, key: ZygoteKey) -> asyncio.Task[Zygote]:
        """Start the key's zygote, once for all who want it."""
        if self._closing:
            raise SandboxUnavailable("the sandbox is closed")

        async def start() -> Zygote:
            await asyncio.sleep(self._backoff(key))
            zygote = self._zygotes[key] = await self._start(key)
            zygote.prepare(self._settings.room)
            self._close_superfluous()
            asyncio.get_running_loop().call_later(GRACE.total_seconds() + 0.1, self._close_superfluous)
            return zygote

        task = self._starting[key] = asyncio.create_task(start())
        task.add_done_callback(lambda task: self._begun(key, task))
        return task

    def _begun(self, key: ZygoteKey, task: asyncio.Task[Zygote]) -> None:
        del self._starting[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a zygote could not be started", extra={"workspace": key.workspace, "reason": str(error)})

    async def _start(self, key: ZygoteKey) -> Zygote:
        zygote = Zygote(key, self._settings, self._scratch, self.groups, self.tier, self.uplink, self._on_death)
        try:
            await zygote.start()
        except SandboxUnavailable:
            self._failures[key] = self._failures.get(key, 0) + 1
            raise
        return zygote

    def _backoff(self, key: ZygoteKey) -> float:
        """Return seconds to wait before this key's next start: none at first, doubling with jitter after failures."""
        failures = self._failures.get(key, 0)
        if not failures:
            return 0.0
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * (1 << min(failures, 16)))
        return longest.total_seconds() * (0.5 + random.random() / 2)  # noqa: S311 (jitter)

    def _on_death(self, zygote: Zygote) -> None:
        """Start a zygote again that has died without being told to."""
        if self._closing or self._zygotes.get(zygote.key) is not zygote:
            return
        log.error("a zygote died and is started again", extra={"workspace": zygote.key.workspace})
        del self._zygotes[zygote.key]
        lived = asyncio.get_running_loop().time() - zygote.born_at
        lately = self._failures.get(zygote.key, 0) if lived < LONGEST_BACKOFF.total_seconds() else 0
        self._failures[zygote.key] = lately + 1
        self._spawn_task(zygote.close())
        if zygote.key not in self._starting:
            _ = self._begin(zygote.key)  # kept in _starting

    def _close_superfluous(self) -> None:
        """Close the zygotes longest unused beyond the allowed number, but none that has work or is about to get it."""
        excess = len(self._zygotes) - self._settings.max_zygotes
        now = asyncio.get_running_loop().time()
        for key, zygote in tuple(self._zygotes.items()):
            if excess <= 0:
                return
            if not zygote.busy and now - zygote.born_at > GRACE.total_seconds():
                excess -= 1
                del self._zygotes[key]
                self._failures.pop(key, None)
                self._spawn_task(zygote.close())

    def _spawn_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_scratch(self) -> None:
        if self._settings.scratch is None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _kind(key: ZygoteKey, execution: Execution) -> Kind:
    assert execution.warm is not None
    limits = msgspec.structs.replace(execution.limits, wall_time=timedelta(0))  # the worker's to see to
    return Kind(zygote=key, key=execution.warm, limits=limits)


def _forget_abandoned() -> None:
    """Remove the scratch folders of our own that killed processes have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        with suppress(FileNotFoundError):
            if pid.isdigit() and not Path("/proc", pid).exists() and folder.stat().st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
