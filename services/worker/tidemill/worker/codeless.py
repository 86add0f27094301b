"""Jobs that run no code: what they answer. Pure; they need neither an environment nor a process."""

from collections.abc import Callable, Mapping

import msgspec

from tidemill.shared.script import JobKind

_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw])


def identity(args: str) -> msgspec.Raw:
    """Return the argument `previous_result` if there is one, else all arguments, as they were sent."""
    return _arguments.decode(args).get("previous_result", msgspec.Raw(args.encode()))


def noop(_args: str) -> msgspec.Raw:
    """Return nothing."""
    return msgspec.Raw(b"null")


ANSWERS: Mapping[str, Callable[[str], msgspec.Raw]] = {JobKind.IDENTITY: identity, JobKind.NOOP: noop}
