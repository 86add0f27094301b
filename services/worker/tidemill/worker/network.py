"""Which network a job gets: the worker's, unless its script asks for less. Pure.

`# network: none` stands among the comments at the top of a script; a script can't ask for more than its worker gives.
"""

import re
from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

from tidemill.shared.annotations import annotations
from tidemill.worker.sandbox.settings import Network

_ANNOTATION = re.compile(r"network:(.*)")
_STRICTEST_FIRST: tuple[Network, ...] = ("none", "all")
_PORTS = {"http": 80, "https": 443}


class UnknownNetworkError(Exception):
    """The script asks for a network that does not exist."""


def policy(code: str, given: Network) -> Network:
    """Return the stricter of what the script asks for and what the worker gives; raises UnknownNetworkError."""
    asked = [given]
    for line in annotations(code):
        if (annotation := _ANNOTATION.fullmatch(line)) is not None:
            word = annotation[1].strip()
            if word not in get_args(Network):
                raise UnknownNetworkError(f"`# network: {word}` is neither of {', '.join(get_args(Network))}")
            asked.append("none" if word == "none" else "all")
    return min(asked, key=_STRICTEST_FIRST.index)


def endpoints(urls: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return host and port of each URL once."""
    found = []
    for url in urls:
        parts = urlsplit(url)
        if parts.hostname:
            found.append((parts.hostname, parts.port or _PORTS.get(parts.scheme, 80)))
    return tuple(dict.fromkeys(found))
