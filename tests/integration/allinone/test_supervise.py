import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from tests.support.processes import is_gone, kill, next_line, python_program
from tidemill.allinone.supervise import Command, supervise

GRACE = timedelta(seconds=20)

# Says its pid, then does what its argument says until SIGTERM.
CHILD = """
import os, signal, sys, time
print("pid", os.getpid(), flush=True)
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] == "fails":
    sys.exit(3)
if sys.argv[1] == "leaves-a-grandchild":
    if os.fork():
        sys.exit(4)
print("deaf" if sys.argv[1] == "stubborn" else "up", flush=True)
time.sleep(600)
"""

SUPERVISOR = """
import asyncio, os, sys
from datetime import timedelta
from tidemill.allinone.supervise import Command, supervise
child = (sys.executable, "-c", sys.argv[1], "waits")
say = lambda line: print(line, flush=True)
asyncio.run(supervise([Command(name, child, os.environ) for name in "ab"], say, grace=timedelta(seconds=9)))
"""


class Lines:
    """What a supervisor said, one line after the other."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def say(self, line: str) -> None:
        self._queue.put_nowait(line)

    async def until(self, part: str) -> str:
        """Return the next line with this part, passing over the others."""
        async with asyncio.timeout(30):
            while part not in (line := await self._queue.get()):
                pass
        return line


def child(name: str, behaviour: str) -> Command:
    return Command(name, (sys.executable, "-c", CHILD, behaviour), os.environ)


@asynccontextmanager
async def supervised(*commands: Command, grace: timedelta = GRACE) -> AsyncIterator[Lines]:
    lines = Lines()
    task = asyncio.create_task(supervise(commands, lines.say, grace=grace))
    try:
        yield lines
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def pid_in(line: str) -> int:
    return int(line.split()[-1])


async def test_what_dies_is_started_again_and_the_death_is_told_with_its_signal() -> None:
    async with supervised(child("worker", "waits")) as lines:
        first = pid_in(await lines.until("worker | pid"))
        kill(first)
        assert "SIGKILL" in await lines.until("died")
        assert pid_in(await lines.until("worker | pid")) != first


async def test_pauses_between_starts_grow() -> None:
    async with supervised(child("api", "fails")) as lines:
        pauses = []
        for _ in range(3):
            line = await lines.until("died")
            assert "exit code 3" in line
            pauses.append(float(line.split()[-2]))
    # Each is a random half-to-whole of 0.5, 1 and 2 seconds.
    assert 0.2 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0 <= pauses[2] <= 2.0


async def test_a_command_that_does_not_exist_is_told_and_tried_again() -> None:
    async with supervised(Command("api", ("/nowhere/at-all",), {}), child("worker", "waits")) as lines:
        await lines.until("worker | up")
        assert "/nowhere/at-all" in await lines.until("api    | died")


async def test_everything_ends_together() -> None:
    async with supervised(child("a", "waits"), child("b", "waits")) as lines:
        pids = [pid_in(await lines.until(" | pid")), pid_in(await lines.until(" | pid"))]
    for pid in pids:
        assert await is_gone(pid, within=0.1)


async def test_what_ignores_the_request_to_stop_is_killed_after_the_grace() -> None:
    loop = asyncio.get_running_loop()
    async with supervised(child("a", "stubborn"), grace=timedelta(milliseconds=300)) as lines:
        pid = pid_in(await lines.until("a | pid"))
        await lines.until("a | deaf")
        began = loop.time()
    assert await is_gone(pid, within=0.1)
    assert loop.time() - began >= 0.3
    assert "killed" in await lines.until("did not stop")


async def test_a_grandchild_that_holds_the_output_does_not_delay_the_next_start() -> None:
    async with supervised(child("a", "leaves-a-grandchild")) as lines:
        await lines.until("a | up")
        assert "exit code 4" in await lines.until("died")
        await lines.until("a | pid")


async def test_everything_ends_with_a_killed_supervisor() -> None:
    async with python_program("-c", SUPERVISOR, CHILD) as supervisor:
        said = [await next_line(supervisor) for _ in range(4)]
        pids = [pid_in(line) for line in said if " | pid" in line]
        assert len(pids) == 2
        assert all(os.getpgid(pid) == os.getpgid(supervisor.pid) for pid in pids)
        supervisor.kill()
        await supervisor.wait()
        for pid in pids:
            assert await is_gone(pid)


async def test_long_lines_and_lines_without_an_end_are_passed_on(home: Path) -> None:
    program = home / "talks.py"
    program.write_text("import sys; sys.stdout.write('x' * 300_000 + '\\n' + 'last words')")
    async with supervised(Command("a", (sys.executable, program), os.environ)) as lines:
        assert len(await lines.until("xxx")) > 200_000
        assert await lines.until("last words") == "a | last words"
