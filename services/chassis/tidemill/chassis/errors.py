"""Errors that more than one service raises or catches."""


class StartRefused(Exception):
    """The process can't start as asked; the message is the one line that its user reads."""


class DatabaseUnavailable(Exception):
    """Postgres can't be reached at this moment; what was asked may or may not have been done."""
