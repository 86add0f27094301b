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
    FLOW = "flow"
    """Walks through the modules of a deployed flow's version."""
    FLOW_PREVIEW = "flowpreview"
    """Walks through the modules of a flow that came with the request."""
    FLOW_NODE = "flownode"
    """Walks through one body inside a flow: an iteration of a loop, or a branch."""
    FLOW_SCRIPT = "flowscript"
    """Code that stands inside a flow."""
    FLOW_DEPENDENCIES = "flowdependencies"
    """Finds the locks of all code inside a flow; runs nothing of it."""


CODELESS = frozenset({JobKind.IDENTITY, JobKind.NOOP})
"""Kinds of jobs that run no code."""

FLOWS = frozenset({JobKind.FLOW, JobKind.FLOW_PREVIEW, JobKind.FLOW_NODE})
"""Kinds of jobs that no worker takes: the scheduler walks them through their modules."""

FLOW_TAG = "flow"
"""The tag under which flows wait; no worker may serve it."""

DEPENDENCY_TAG = "dependency"
"""The tag of jobs of the kind `dependencies`."""


class Outcome(StrEnum):
    """How a finished job ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELED = "canceled"
    SKIPPED = "skipped"
