"""What the worker is told, on one screen."""

from collections.abc import Mapping

from tidemill.chassis.inbox import Handler
from tidemill.shared.message import Message
from tidemill.shared.messages import CancelJob
from tidemill.worker.handlers import cancel_job
from tidemill.worker.held import Held


def handlers(held: Held) -> Mapping[type[Message], Handler]:
    """Return who handles what."""
    return {CancelJob: lambda message, _: cancel_job.handle(message, held)}
