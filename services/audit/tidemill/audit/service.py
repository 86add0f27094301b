"""What the audit service is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from tidemill.audit import anchoring, retention
from tidemill.audit.address import leave
from tidemill.audit.handlers import handlers
from tidemill.audit.key import key_file, made
from tidemill.audit.pen import LARGEST_BATCH, Pen
from tidemill.audit.settings import AuditSettings
from tidemill.audit.store import entries
from tidemill.chassis.inbox import listen
from tidemill.chassis.loops import Loop, run
from tidemill.chassis.service import Frame, ServiceSpec, background
from tidemill.shared.catalog import AUDIT_EVENTS, Service


@asynccontextmanager
async def open_audit(frame: Frame) -> AsyncIterator[None]:
    """Listen, write down what is heard, and sign what was written; any number of replicas may do so at once."""
    settings = frame.read(AuditSettings)
    key = made(key_file(settings, frame.settings.home))
    leave(frame.settings.database_url_of(Service.AUDIT), frame.settings.home)
    await entries.prepare_days(frame.database, retention.AHEAD)
    loops = (
        Loop(
            name="audit-anchors",
            every=settings.audit_anchor,
            turn=lambda: anchoring.run_once(frame.database, key, frame.clock),
            patience=settings.audit_anchor + timedelta(minutes=10),
        ),
        Loop(
            name="audit-retention",
            every=timedelta(hours=1),
            turn=lambda: retention.run_once(frame.database, key, frame.clock, settings.audit_retention),
            patience=timedelta(hours=3),
        ),
    )
    pen = Pen(frame.database)
    turning = [run(loop, frame.health) for loop in loops]
    async with (
        background(pen.run(), *turning),
        listen(frame.broker, AUDIT_EVENTS, handlers(pen), prefetch=LARGEST_BATCH),
    ):
        yield


SERVICE = ServiceSpec(name=Service.AUDIT, settings=AuditSettings, open=open_audit)
