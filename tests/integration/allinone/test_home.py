import asyncio
import stat
from pathlib import Path

import pytest

from tests.support.processes import next_line, python_program
from tidemill.allinone.home import opened, secret, secret_file
from tidemill.chassis.errors import StartRefused

HOLD = """
import sys
from pathlib import Path
from tidemill.allinone.home import opened
with opened(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_folder_that_another_instance_holds_is_refused_with_its_name_and_process(home: Path) -> None:
    async with python_program("-c", HOLD, home) as other:
        assert await next_line(other) == "held"
        with pytest.raises(StartRefused) as refused, opened(home):
            pass
        assert str(home) in str(refused.value)
        assert str(other.pid) in str(refused.value)
        assert "\n" not in str(refused.value)


async def test_a_folder_is_free_again_when_its_instance_was_killed(home: Path) -> None:
    async with python_program("-c", HOLD, home) as other:
        await next_line(other)
        other.kill()
        await other.wait()
        with opened(home) as folder:
            assert folder == home


def test_a_folder_is_closed_to_others_even_if_it_was_open_before(home: Path) -> None:
    home.chmod(0o755)
    with opened(home):
        assert mode(home) == 0o700


def test_a_secret_is_made_once_and_readable_by_its_owner_alone(home: Path) -> None:
    first = secret(home, "thing")
    assert len(first) == 48
    assert secret(home, "thing") == first
    assert secret(home, "other") != first
    assert mode(secret_file(home, "thing")) == 0o600
    assert mode(secret_file(home, "thing").parent) == 0o700
    assert sorted(file.name for file in secret_file(home, "thing").parent.iterdir()) == ["other", "thing"]


async def test_callers_at_the_same_time_get_the_same_secret(home: Path) -> None:
    answers = await asyncio.gather(*(asyncio.to_thread(secret, home, "thing") for _ in range(20)))
    assert len(set(answers)) == 1


def test_a_home_that_cannot_be_made_is_refused_in_one_line(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(StartRefused, match="TIDEMILL_HOME"), opened(home / "file" / "below"):
        pass
