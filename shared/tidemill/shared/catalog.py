"""One table: each message, the exchange and routing key it travels by, who says it and who listens.

The AsyncAPI document, the queues that are declared and the check inside `bus.say()` are all made from it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from tidemill.shared import messages as m
from tidemill.shared.message import Message


class Service(StrEnum):
    """Who may say or hear a message; the login role in the database is `tidemill_<service>`."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    AUDIT = "audit"


class Exchange(StrEnum):
    """The exchanges of the broker."""

    JOBS = "tidemill.jobs"
    EVENTS = "tidemill.events"
    CONTROL = "tidemill.control"


EXCHANGES: Mapping[Exchange, Literal["direct", "topic"]] = {
    Exchange.JOBS: "direct",
    Exchange.EVENTS: "topic",
    Exchange.CONTROL: "topic",
}

DEAD_LETTERS = "tidemill.dead-letters"
"""Exchange and queue of the messages that nobody could read; they wait there to be looked at and replayed."""

AGAIN = "tidemill.again"
"""Topic exchange by which a listener puts a message behind all that waits: the key is the name of its own queue."""


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One queue: durable ones are shared by a service's replicas, the others live and die with one process."""

    name: str
    exchange: Exchange
    keys: tuple[str, ...] = ()
    durable: bool = True


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """How one message travels."""

    message: type[Message]
    exchange: Exchange
    key: str
    """Routing key; `{...}` is filled from the message or by the sender."""
    says: frozenset[Service]
    hears: frozenset[Service]
    outbox: bool
    """True: written in the sender's transaction and confirmed. False: said once, lost when nobody listens."""


CATALOG: tuple[Entry, ...] = (
    Entry(
        message=m.JobTicket,
        exchange=Exchange.JOBS,
        key="{tag}",
        says=frozenset({Service.API, Service.SCHEDULER, Service.WORKER}),
        hears=frozenset({Service.WORKER}),
        outbox=True,
    ),
    Entry(
        message=m.JobScheduled,
        exchange=Exchange.EVENTS,
        key="job.scheduled",
        says=frozenset({Service.API, Service.SCHEDULER}),
        hears=frozenset({Service.SCHEDULER}),
        outbox=True,
    ),
    Entry(
        message=m.FlowReady,
        exchange=Exchange.EVENTS,
        key="flow.ready",
        says=frozenset({Service.API, Service.SCHEDULER, Service.WORKER}),
        hears=frozenset({Service.SCHEDULER}),
        outbox=True,
    ),
    Entry(
        message=m.JobAnswered,
        exchange=Exchange.EVENTS,
        key="reply.{replica}",
        says=frozenset({Service.API, Service.SCHEDULER, Service.WORKER}),
        hears=frozenset({Service.API}),
        outbox=False,
    ),
    Entry(
        message=m.JobProgressed,
        exchange=Exchange.EVENTS,
        key="follow.{job_id}",
        says=frozenset({Service.API, Service.SCHEDULER, Service.WORKER}),
        hears=frozenset({Service.API}),
        outbox=False,
    ),
    Entry(
        message=m.CancelJob,
        exchange=Exchange.CONTROL,
        key="worker.{worker_run}",
        says=frozenset({Service.API, Service.SCHEDULER}),
        hears=frozenset({Service.WORKER}),
        outbox=False,
    ),
    Entry(
        message=m.WorkerAnnounced,
        exchange=Exchange.EVENTS,
        key="worker.announced",
        says=frozenset({Service.WORKER}),
        hears=frozenset({Service.SCHEDULER}),
        outbox=True,
    ),
    Entry(
        message=m.AuditRecorded,
        exchange=Exchange.EVENTS,
        key="audit.{operation}",
        says=frozenset({Service.API, Service.SCHEDULER}),
        hears=frozenset({Service.AUDIT}),
        outbox=True,
    ),
)

RELAY = Service.SCHEDULER
"""Publishes what the others have written into their outboxes and did not live to publish."""

BY_TYPE: Mapping[str, Entry] = {entry.message.TYPE: entry for entry in CATALOG}
BY_MESSAGE: Mapping[type[Message], Entry] = {entry.message: entry for entry in CATALOG}

SCHEDULER_WAKEUPS = QueueSpec(
    name="scheduler.wakeups", exchange=Exchange.EVENTS, keys=("job.scheduled", "worker.announced")
)
SCHEDULER_FLOWS = QueueSpec(name="scheduler.flows", exchange=Exchange.EVENTS, keys=("flow.ready",))
AUDIT_EVENTS = QueueSpec(name="audit.events", exchange=Exchange.EVENTS, keys=("audit.#",))
DURABLE_QUEUES: tuple[QueueSpec, ...] = (SCHEDULER_WAKEUPS, SCHEDULER_FLOWS, AUDIT_EVENTS)
"""Declared by every service at its start, so that an event is kept even when its listener has never run."""


def tickets(tag: str) -> QueueSpec:
    """Return the queue that holds the tickets of one tag."""
    return QueueSpec(name=f"jobs.{tag}", exchange=Exchange.JOBS, keys=(tag,))


def own_line(worker_run: object) -> str:
    """Return what stands in place of a tag where only one worker process may run a job; no tag begins like this."""
    return f"@{worker_run}"


def own_tickets(worker_run: object) -> QueueSpec:
    """Return the queue that holds the tickets of jobs that only one worker process may run; it goes with the process.

    To the broker its line is a tag as others.
    """
    line = own_line(worker_run)
    return QueueSpec(name=f"jobs.{line}", exchange=Exchange.JOBS, keys=(line,), durable=False)


def replica_inbox(replica: str) -> QueueSpec:
    """Return the queue of one api process: its replies, and what it binds to while it follows a job."""
    return QueueSpec(name=f"api.{replica}", exchange=Exchange.EVENTS, keys=(f"reply.{replica}",), durable=False)


def worker_inbox(worker_run: str) -> QueueSpec:
    """Return the queue by which one worker process is told to cancel jobs."""
    return QueueSpec(
        name=f"worker.{worker_run}", exchange=Exchange.CONTROL, keys=(f"worker.{worker_run}",), durable=False
    )


QUEUES_OF: Mapping[Service, tuple[QueueSpec, ...]] = {
    Service.API: (replica_inbox("{replica}"),),
    Service.SCHEDULER: (SCHEDULER_WAKEUPS, SCHEDULER_FLOWS),
    Service.WORKER: (tickets("{tag}"), worker_inbox("{worker_run}")),
    Service.AUDIT: (AUDIT_EVENTS,),
}
"""Every queue under the service that listens to it, the ones of a tag or a process with their placeholder."""


def publishes(service: Service, entry: Entry) -> bool:
    """Return whether a service puts a message onto its exchange: one that it says itself or relays."""
    return service in entry.says or (service is RELAY and entry.outbox)


def routing_key(message: Message, **also: str) -> str:
    """Return the key that a message travels under, its placeholders filled from the message or from `also`."""
    fields = {name: str(getattr(message, name)) for name in message.__struct_fields__}
    return BY_MESSAGE[type(message)].key.format(**fields, **also)
