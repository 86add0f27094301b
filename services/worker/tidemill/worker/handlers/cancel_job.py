"""Stop a job now."""

from tidemill.shared.messages import CancelJob
from tidemill.worker.held import Halt, Held


async def handle(message: CancelJob, held: Held) -> None:
    """Stop the job's run; a job that is not here any more has ended by itself."""
    for holding in held.of_job(message.job_id):
        holding.end(Halt.CANCELED)
