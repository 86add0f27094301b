"""Why a job can't have what it wants installed."""


class NotInstallable(Exception):
    """The text is what the job's error says, `name` how it is called."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Unreachable(NotInstallable):
    """An index did not answer; it may do so in a moment."""


class NotStarted(NotInstallable):
    """A program can't be started here."""


class Stopped(Exception):
    """The job was stopped before it had its environment."""
