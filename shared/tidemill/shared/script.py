"""What a script is, as far as more than one service has to know."""

from enum import StrEnum


class Language(StrEnum):
    """Languages that a worker of this version runs; the value is what clients send."""

    PYTHON3 = "python3"
    BASH = "bash"


class JobKind(StrEnum):
    """Why a job exists."""

    SCRIPT = "script"
    PREVIEW = "preview"
    DEPENDENCIES = "dependencies"
    """Finds out what exactly a script needs installed; runs nothing of it."""
    IDENTITY = "identity"
    """Answers its arguments, or the one named previous_result."""
    NOOP = "noop"
    """Answers nothing."""


CODELESS = frozenset({JobKind.IDENTITY, JobKind.NOOP})
"""Kinds of jobs that run no code."""

DEPENDENCY_TAG = "dependency"
"""The tag of jobs of the kind `dependencies`."""


class Outcome(StrEnum):
    """How a finished job ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELED = "canceled"
    SKIPPED = "skipped"
