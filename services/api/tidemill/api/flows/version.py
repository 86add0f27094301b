"""The number of a version, as it stands in a path of the API."""

import re

from tidemill.api.http.errors import NotFound

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def number_of(text: str) -> int:
    """Return the number; raises NotFound for what is none that a version could have."""
    if _NUMBER.fullmatch(text) is None:
        raise NotFound(f"There is no version {text}.")
    return int(text)
