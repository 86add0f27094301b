"""What evaluating may cost, and which names ask the host."""

from datetime import timedelta

import msgspec

MEBIBYTE = 1 << 20


class JavaScriptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one evaluation, and the names that every expression sees beside what is known."""

    processes: int = 2
    memory: int = 64 * MEBIBYTE
    time_limit: timedelta = timedelta(seconds=10)
    longest: int = 16 * MEBIBYTE  # of a value, in bytes of JSON
    lookups: int = 1000  # values asked of the scope by one evaluation
    objects: tuple[str, ...] = ()  # `name.key` asks the scope for (name, key)
    functions: tuple[str, ...] = ()  # `await name(key)` does
    start_timeout: timedelta = timedelta(seconds=30)
