"""What a decision may ask before it is made. The engine yields these; whoever drives it answers.

An answer that can't be given is thrown into the engine as `Unanswered`: the step that asked fails with it.
"""

from collections.abc import Mapping
from uuid import UUID

import msgspec


class Unanswered(Exception):
    """Why a question has no answer, in words for the user."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class ResultOf(msgspec.Struct, frozen=True):
    """Stands for the result of a job."""

    job_id: UUID


class ListOf(msgspec.Struct, frozen=True):
    """Stands for the results of a step's children so far."""

    no: int


class ArgsOf(msgspec.Struct, frozen=True):
    """Stands for the arguments of a job."""

    job_id: UUID


Known = msgspec.Raw | ResultOf | ListOf | ArgsOf


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What an expression answers at a place of the flow, as JSON."""

    source: str
    before: int
    """What lies before this place is seen."""
    names: Mapping[str, Known] = {}
    """Names that only this expression sees."""
    own: Mapping[str, msgspec.Raw] = {}
    """What is put over the flow's input: the iteration."""


class Argument(Value, frozen=True, kw_only=True):
    """The same for an argument: a reference to a variable or resource stays one, for the worker to resolve."""


class Truth(Value, frozen=True, kw_only=True):
    """Whether it is true, as JavaScript sees it."""


class FindScript(msgspec.Struct, frozen=True):
    """Which version of a script is to run."""

    path: str
    hash: str | None = None


class FindFlow(msgspec.Struct, frozen=True):
    """Which version of a flow is to run."""

    path: str


class Slots(msgspec.Struct, frozen=True):
    """How many jobs of a tag can run at once."""

    tag: str


class Cached(msgspec.Struct, frozen=True):
    """The result that is kept under a key, or None."""

    key: str


Ask = Value | FindScript | FindFlow | Slots | Cached


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The version that was found."""

    path: str
    hash: str
    language: str = ""
    tag: str | None = None
    envs: tuple[str, ...] = ()
    timeout_s: int | None = None
    concurrent_limit: int | None = None
    concurrency_key: str | None = None
    priority: int | None = None
    cache_ttl_s: int | None = None
    erase_after_s: int | None = None
