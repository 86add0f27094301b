"""What every handler of the api is given."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tidemill.api.approvals.ports import Groups, OnlyAll
from tidemill.api.flows.expressions import Expressions
from tidemill.api.settings import ApiSettings
from tidemill.api.tokens.usage import TokenUsage
from tidemill.api.users.guessing import Guesses
from tidemill.api.users.passwords import Passwords
from tidemill.chassis import loops
from tidemill.chassis.broker import Broker
from tidemill.chassis.clock import Clock
from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.health import Health
from tidemill.chassis.javascript import JavaScript, JavaScriptSettings
from tidemill.chassis.outbox import Outbox
from tidemill.chassis.service import Frame, background

if TYPE_CHECKING:
    from tidemill.api.jobs.ports import Waiters

log = logging.getLogger(__name__)

_WRITE_USAGE_EVERY = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class ApiContext:
    """The parts that one api process is made of."""

    settings: ApiSettings
    database: Database
    outbox: Outbox
    broker: Broker
    health: Health
    clock: Clock
    waiters: "Waiters"
    """Those who wait for jobs at this replica."""
    passwords: Passwords
    guesses: Guesses
    expressions: Expressions
    """Those of flows, read before a flow is taken."""
    javascript: JavaScript
    """Evaluates what callers want computed; no expression of a flow, which the scheduler does."""
    token_usage: TokenUsage
    groups: Groups
    closing: asyncio.Event
    """Set when this process goes: a handler that is cancelled from then on has not been left by its client."""


@asynccontextmanager
async def open_context(frame: Frame, settings: ApiSettings, waiters: "Waiters") -> AsyncIterator[ApiContext]:
    """Make the parts for the block, with the loop that writes down when tokens were used."""
    usage = TokenUsage(frame.database, frame.clock)
    write_usage = loops.Loop(name="token-usage", every=_WRITE_USAGE_EVERY, turn=usage.turn)
    async with AsyncExitStack() as stack:
        javascript = await stack.enter_async_context(JavaScript(JavaScriptSettings()))
        passwords = Passwords()
        stack.callback(passwords.close)
        context = ApiContext(
            settings=settings,
            database=frame.database,
            outbox=frame.outbox,
            broker=frame.broker,
            health=frame.health,
            clock=frame.clock,
            waiters=waiters,
            passwords=passwords,
            guesses=Guesses(frame.clock),
            expressions=Expressions(javascript),
            javascript=javascript,
            token_usage=usage,
            groups=OnlyAll(),
            closing=asyncio.Event(),
        )
        async with background(loops.run(write_usage, frame.health)):
            yield context
        await _write_the_rest(usage)


async def _write_the_rest(usage: TokenUsage) -> None:
    try:
        await usage.turn()
    except DatabaseUnavailable as error:
        log.warning("when tokens were last used is lost", extra={"error": str(error)})
