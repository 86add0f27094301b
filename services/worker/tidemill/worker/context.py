"""What the worker's parts are given."""

from dataclasses import dataclass

from tidemill.chassis.broker import Broker
from tidemill.chassis.database import Database
from tidemill.chassis.outbox import Outbox
from tidemill.chassis.settings import ChassisSettings
from tidemill.worker.environments.environments import Environments
from tidemill.worker.held import Held
from tidemill.worker.sandbox.pool import Sandbox
from tidemill.worker.settings import WorkerSettings
from tidemill.worker.sharing import Sharing
from tidemill.worker.store.queue import Identity
from tidemill.worker.store.scripts import Sources

SAYS = "/tidemill/worker"


@dataclass(frozen=True, kw_only=True)
class Context:
    """The worker's neighbours, its settings and what it holds."""

    chassis: ChassisSettings
    settings: WorkerSettings
    me: Identity
    database: Database
    broker: Broker
    outbox: Outbox
    sandbox: Sandbox
    sources: Sources
    environments: Environments
    held: Held
    sharing: Sharing
