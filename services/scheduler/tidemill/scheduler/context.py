"""What handlers and clockwork are given."""

from dataclasses import dataclass

from tidemill.chassis.broker import Broker
from tidemill.chassis.database import Database
from tidemill.chassis.loops import Waker
from tidemill.chassis.outbox import Outbox
from tidemill.chassis.settings import ChassisSettings
from tidemill.scheduler.settings import SchedulerSettings
from tidemill.scheduler.walking.walks import Walks


@dataclass(frozen=True, kw_only=True)
class Context:
    """The scheduler's neighbours and settings."""

    chassis: ChassisSettings
    settings: SchedulerSettings
    database: Database
    broker: Broker
    outbox: Outbox
    tick: Waker
    walks: Walks
