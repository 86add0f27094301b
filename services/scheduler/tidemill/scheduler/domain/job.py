"""The states of a job and what may follow what.

    scheduled ──▶ queued ◀── blocked ──▶ skipped        (debounced)
        └───────▶ blocked
    queued ─────▶ running ──▶ success | failure
                  running ──▶ queued                    (lost lease, drain)
                  running ──▶ suspended ──▶ queued      (workflows as code: tasks, approval, sleep)
    queued ─────▶ suspended ──▶ success | failure | skipped   (flows: the scheduler walks their steps)
    queued ─────▶ skipped                               (guards)
    queued ─────▶ failure                               (steps whose only worker has gone)
    any unfinished state ──▶ canceled

The database enforces the same table: `python -m tidemill.scheduler.domain.transitions` writes it as a trigger.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a job stands; the last four are final."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELED = "canceled"
    SKIPPED = "skipped"


FOLLOWERS: Mapping[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.QUEUED, State.BLOCKED, State.CANCELED}),
    State.BLOCKED: frozenset({State.QUEUED, State.SKIPPED, State.CANCELED}),
    State.QUEUED: frozenset({State.RUNNING, State.SUSPENDED, State.FAILURE, State.SKIPPED, State.CANCELED}),
    State.RUNNING: frozenset({State.SUCCESS, State.FAILURE, State.QUEUED, State.SUSPENDED, State.CANCELED}),
    State.SUSPENDED: frozenset({State.QUEUED, State.SUCCESS, State.FAILURE, State.SKIPPED, State.CANCELED}),
    State.SUCCESS: frozenset(),
    State.FAILURE: frozenset(),
    State.CANCELED: frozenset(),
    State.SKIPPED: frozenset(),
}


def may_follow(state: State, following: State) -> bool:
    """Return whether a job in `state` may enter `following` next."""
    return following in FOLLOWERS[state]
