"""Which route a path means: segment by segment, by exact comparison, or none.

The raw path is split before it is decoded, and decoded once. A path with anything that two programs could read
differently (an empty segment, a dot segment, a backslash, a control character, a slash hidden in a segment) means no
route at all; nothing is ever cleaned up first. The policy belongs to the route that was found, so there is no second
opinion about what a path is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from tidemill.api.http.errors import BadRequest, MethodNotAllowed, NotFound
from tidemill.api.http.route import Route

_UNKNOWN = "There is no such path in this API."


@dataclass
class _Node:
    """What may follow in a path."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    rest: dict[str, Route] = field(default_factory=dict)
    """Routes that end in `{name...}` here, by method."""
    routes: dict[str, Route] = field(default_factory=dict)
    """Routes that end here, by method."""


class Paths:
    """The routes, as a tree of their segments; a literal segment is preferred to a parameter."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def find(self, method: str, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        """Return the route and its parameters; raises NotFound, MethodNotAllowed or BadRequest."""
        segments = _segments(raw_path)
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for routes, values in _ends(self._root, segments, 0, ()):
            route = routes.get(wanted)
            if route is not None:
                return route, dict(zip(route.parameters, values, strict=True))
            allowed |= routes.keys()
        if not allowed:
            raise NotFound(_UNKNOWN)
        raise MethodNotAllowed(frozenset(allowed | ({"HEAD"} if "GET" in allowed else set())))

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.path.removeprefix("/").split("/"):
            if segment.endswith("...}"):
                _put(node.rest, route)
                return
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        _put(node.routes, route)


def _put(routes: dict[str, Route], route: Route) -> None:
    if route.method in routes:
        raise ValueError(f"{route.name} is there twice")
    routes[route.method] = route


def _segments(raw_path: str) -> list[tuple[str, bool]]:
    """Return the decoded segments, each with whether a slash was hidden in it."""
    if not raw_path.startswith("/"):
        raise NotFound(_UNKNOWN)
    found = []
    for raw in raw_path[1:].split("/"):
        try:
            segment = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise BadRequest("The path is not UTF-8.") from None
        if any(part in ("", ".", "..") for part in segment.split("/")) or "\\" in segment:
            raise NotFound(_UNKNOWN)
        if any(ord(each) < 32 or ord(each) == 127 for each in segment):
            raise BadRequest("The path holds a control character.")
        found.append((segment, "/" in segment))
    return found


def _ends(
    node: _Node, segments: list[tuple[str, bool]], at: int, values: tuple[str, ...]
) -> Iterable[tuple[dict[str, Route], tuple[str, ...]]]:
    """Return every place in the tree where this path may end, best first."""
    if at == len(segments):
        if node.routes:
            yield node.routes, values
        return
    segment, hides_slash = segments[at]
    if not hides_slash:
        if segment in node.literals:
            yield from _ends(node.literals[segment], segments, at + 1, values)
        if node.parameter is not None:
            yield from _ends(node.parameter, segments, at + 1, (*values, segment))
    if node.rest:
        # Only here may a slash come encoded: some generated clients do so, and it means what a bare one means.
        yield node.rest, (*values, "/".join(each for each, _ in segments[at:]))
