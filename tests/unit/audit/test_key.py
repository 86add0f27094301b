"""The key file: made once, private, and never guessed."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill.audit.key import kept, key_file, made
from tidemill.audit.settings import AuditSettings
from tidemill.chassis.errors import StartRefused


def test_it_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = key_file(AuditSettings(), tmp_path)
    key = made(file)
    assert file == tmp_path / "secrets" / "audit-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(key) == 32
    assert made(file) == kept(file) == key
    assert list(file.parent.iterdir()) == [file]


def test_all_who_come_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(made, [tmp_path / "key"] * 8))) == 1


def test_a_missing_key_is_never_made_by_somebody_who_only_verifies(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="TIDEMILL_AUDIT_KEY_FILE"):
        kept(tmp_path / "key")
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("content", ["", "00", "not hex"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(StartRefused, match="is no audit key"):
        made(tmp_path / "key")
