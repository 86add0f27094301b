"""Names of people."""

import re

_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,49}")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def normal_email(email: str) -> str:
    """Return the one spelling under which a person is kept."""
    return email.strip().lower()


def is_username(name: str) -> bool:
    """Return whether a name can stand in a path such as `u/<name>/script`."""
    return _USERNAME.fullmatch(name) is not None


def username_from(email: str) -> str:
    """Return the username that an email suggests."""
    return _NOT_IN_A_NAME.sub("_", email.partition("@")[0]).strip("_-")[:50] or "user"
