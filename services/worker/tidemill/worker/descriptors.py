"""How many files and connections this process may have open."""

import resource

_ENOUGH = 1 << 16


def raise_limit() -> None:
    """Take as many as we are allowed and can use: the usual 1024 are soon gone with many jobs and their connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
