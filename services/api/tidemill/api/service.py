"""What the api is made of."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidemill.api.app import serving
from tidemill.api.bootstrap import make_first_admin
from tidemill.api.context import open_context
from tidemill.api.jobs.waiting import waiting_room
from tidemill.api.settings import ApiSettings
from tidemill.chassis.service import Frame, ServiceSpec
from tidemill.shared.catalog import Service
from tidemill.shared.ids import ReplicaId

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_api(frame: Frame) -> AsyncIterator[None]:
    """Make sure that there is an admin, then serve; any number of replicas may do so at once."""
    settings = frame.read(ApiSettings)
    replica = ReplicaId(secrets.token_hex(8))
    async with (
        waiting_room(frame.database, frame.broker, replica) as waiters,
        open_context(frame, settings, waiters) as ctx,
    ):
        await make_first_admin(ctx.database, ctx.passwords, settings, frame.settings.home)
        async with serving(ctx) as port:
            log.info("api listens", extra={"bind": settings.bind, "port": port, "replica": replica})
            yield


SERVICE = ServiceSpec(name=Service.API, settings=ApiSettings, open=open_api)
