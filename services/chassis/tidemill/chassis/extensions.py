"""What a service can be given from outside: every extension point is one entry-point group of installed distributions.

A service names its points in its `ports.py`; an extension declares, say, `[project.entry-points."tidemill.api.routes"]`
and is there when its distribution is. Remove the distribution and nothing else has to change.
"""

from importlib.metadata import entry_points
from typing import TypeVar

from tidemill.chassis.errors import StartRefused

T = TypeVar("T")


def load(group: str, kind: type[T]) -> list[T]:
    """Return what installed distributions contribute to a group, by entry-point name.

    Raises StartRefused when one can't be imported or is not what the group asks for: an extension that silently does
    nothing would be worse than none.
    """
    found = []
    for point in sorted(entry_points(group=group), key=lambda each: each.name):
        try:
            contribution = point.load()
        except Exception as error:
            raise StartRefused(f"the extension {point.name} of {group} can't be loaded: {error}") from error
        if not isinstance(contribution, kind):
            raise StartRefused(f"the extension {point.name} of {group} is no {kind.__name__}")
        found.append(contribution)
    return found
