"""What every handler of the api is given."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemill.api.http.limits import Attempts
from tidemill.api.settings import ApiSettings
from tidemill.api.tokens.usage import TokenUsage
from tidemill.api.users.passwords import Passwords
from tidemill.chassis.broker import Broker
from tidemill.chassis.clock import Clock
from tidemill.chassis.database import Database
from tidemill.chassis.health import Health
from tidemill.chassis.outbox import Outbox

if TYPE_CHECKING:
    from tidemill.api.jobs.ports import Waiters


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
    login_attempts: Attempts
    token_usage: TokenUsage
