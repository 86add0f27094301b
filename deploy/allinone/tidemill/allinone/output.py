"""What a child process prints, line by line."""

import asyncio
import os

from tidemill.allinone.daemon import Say

LONGEST_LINE = 256 * 1024


async def relay(descriptor: int, say: Say) -> None:
    """Say each line that comes out of a pipe, until its other end is closed; closes this end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    rest = b""
    try:
        while chunk := await reader.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                say(line.decode("utf-8", "replace"))
        if rest:
            say(rest.decode("utf-8", "replace"))
    finally:
        transport.close()
