"""`tidemill audit verify` as its user sees it."""

import argparse
import stat
from pathlib import Path

import pytest

from tests.integration.audit.conftest import Log
from tests.support.database import DatabaseUrls
from tests.support.services import running
from tidemill.audit.address import address_file, leave
from tidemill.audit.command import COMMAND, verified
from tidemill.audit.service import SERVICE
from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import Service


def environment(urls: DatabaseUrls, home: Path, key: bytes) -> dict[str, str]:
    file = home / "key"
    file.write_text(key.hex())
    return {"TIDEMILL_AUDIT_DATABASE_URL": urls[Service.AUDIT], "TIDEMILL_AUDIT_KEY_FILE": str(file)}


async def test_a_whole_log_is_called_whole(
    log: Log, own_database_urls: DatabaseUrls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await log.append(3)
    await log.anchor()
    assert await verified(environment(own_database_urls, tmp_path, log.key), None)
    assert capsys.readouterr().out == "workspace 'w': whole up to row 3\n✓ the audit log is whole\n"


async def test_the_first_wrong_row_is_named(
    log: Log, own_database_urls: DatabaseUrls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await log.append(3)
    await log.append(2, "v")
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE workspace_id = 'w' AND seq = 2")
    environ = environment(own_database_urls, tmp_path, log.key)
    assert not await verified(environ, None)
    assert capsys.readouterr().out == (
        "workspace 'v': whole up to row 2\n"
        "workspace 'w', row 2: altered (its hash is not that of its columns)\n"
        "✗ the audit log was tampered with\n"
    )
    assert await verified(environ, "v")


async def test_what_to_set_is_said_when_it_is_not_known_where_the_log_is(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match=r"set TIDEMILL_AUDIT_DATABASE_URL to .* or TIDEMILL_HOME to"):
        await verified({"TIDEMILL_HOME": str(tmp_path)}, None)


async def test_what_to_set_is_said_when_there_is_no_key(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    url = own_database_urls[Service.AUDIT]
    with pytest.raises(StartRefused, match="set TIDEMILL_AUDIT_KEY_FILE"):
        await verified({"TIDEMILL_HOME": str(tmp_path), "TIDEMILL_AUDIT_DATABASE_URL": url}, None)


async def test_the_data_folder_of_an_installation_is_all_that_has_to_be_known(
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    home = {"TIDEMILL_HOME": str(tmp_path)}
    async with running(own_database_urls, SERVICE, settings=home):
        assert stat.S_IMODE(address_file(tmp_path).stat().st_mode) == 0o600
        assert await verified(home, None)


def test_the_login_of_a_database_elsewhere_is_not_written_down(tmp_path: Path) -> None:
    leave("postgresql://tidemill_audit:secret@db.example.com/tidemill", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "workspace"), [(["verify"], None), (["verify", "--workspace", "w"], "w")])
def test_its_arguments(arguments: list[str], workspace: str | None) -> None:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    assert parser.parse_args(arguments).workspace == workspace
