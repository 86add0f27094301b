"""A broker that somebody else runs: is it there, and does it let us in?"""

import asyncio
import logging
import re
from datetime import timedelta

import aio_pika
from aiormq.exceptions import AMQPError

from tidemill.allinone.daemon import Say
from tidemill.chassis.errors import StartRefused

_TRIES = 5
_PAUSE = timedelta(seconds=2)
_PATIENCE = 5.0


async def refuse_unreachable_broker(url: str, setting: str, say: Say) -> None:
    """Return once the broker has let us in; raises StartRefused after a few tries, without the password."""
    shown = re.sub(r"//([^:/@]*):[^@]*@", r"//\1:***@", url)
    # The driver's own words about each failure would stand beside ours.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    for attempt in range(_TRIES):
        try:
            connection = await aio_pika.connect(url, timeout=_PATIENCE)
        except (AMQPError, OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            if attempt + 1 == _TRIES:
                raise StartRefused(f"{setting}={shown} can't be reached: {reason}") from error
            say(f"waiting for RabbitMQ at {shown}: {reason}")
            await asyncio.sleep(_PAUSE.total_seconds())
        else:
            await connection.close()
            return
