"""What the audit service is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidemill.audit.handlers import handlers
from tidemill.audit.settings import AuditSettings
from tidemill.chassis.inbox import listen
from tidemill.chassis.service import Frame, ServiceSpec
from tidemill.shared.catalog import AUDIT_EVENTS, Service


@asynccontextmanager
async def open_audit(frame: Frame) -> AsyncIterator[None]:
    """Listen, and write down what is heard."""
    async with listen(frame.broker, AUDIT_EVENTS, handlers(frame.database), prefetch=64):
        yield


SERVICE = ServiceSpec(name=Service.AUDIT, settings=AuditSettings, open=open_audit)
