"""pip's settings in the words of uv."""

from pathlib import Path

import pytest

from tidemill.worker.environments.index import Sources, sources

NONE = {"PIP_CONFIG_FILE": "/dev/null"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"PIP_INDEX_URL": "https://a/simple"}, {"UV_DEFAULT_INDEX": "https://a/simple"}),
        ({"PIP_EXTRA_INDEX_URL": "https://a/s\n https://b/s"}, {"UV_INDEX": "https://a/s https://b/s"}),
        ({"PIP_FIND_LINKS": "/wheels https://c/"}, {"UV_FIND_LINKS": "/wheels,https://c/"}),
        ({"PIP_TRUSTED_HOST": "a b:8080"}, {"UV_INSECURE_HOST": "a b:8080"}),
        ({"PIP_DEFAULT_TIMEOUT": "9"}, {"UV_HTTP_TIMEOUT": "9"}),
        ({"PIP_CERT": "/ca.pem", "PIP_PROXY": "http://p"}, {"SSL_CERT_FILE": "/ca.pem", "ALL_PROXY": "http://p"}),
        ({"PIP_NO_INDEX": "0", "PIP_INDEX_URL": ""}, {}),
        ({"PIP_INDEX_URL": "https://a", "UV_DEFAULT_INDEX": "https://b"}, {"UV_DEFAULT_INDEX": "https://b"}),
        ({"UV_INDEX_A_PASSWORD": "x", "UV_TARGET": "/", "TIDEMILL_DATABASE_URL": "y"}, {"UV_INDEX_A_PASSWORD": "x"}),
    ],
)  # fmt: skip
def test_variables_are_translated(given: dict[str, str], told: dict[str, str]) -> None:
    assert sources({**NONE, **given}) == Sources(told)


def test_without_an_index_none_of_them_is_named() -> None:
    given = {"PIP_NO_INDEX": "true", "PIP_FIND_LINKS": "/wheels", "PIP_INDEX_URL": "https://a", "UV_INDEX": "https://b"}
    assert sources({**NONE, **given}) == Sources({"UV_FIND_LINKS": "/wheels"}, ("--no-index",))


def test_files_are_read_and_give_way_to_variables(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.conf"
    chosen.write_text("[global]\nindex-url = https://chosen/\n[install]\nfind-links = /a\n  /b\n")
    home = tmp_path / ".config" / "pip"
    home.mkdir(parents=True)
    (home / "pip.conf").write_text("[global]\nindex-url = https://home/\nextra-index-url = https://extra/%20x/\n")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(chosen)}
    told = sources(environ).variables
    assert (told["UV_DEFAULT_INDEX"], told["UV_INDEX"]) == ("https://chosen/", "https://extra/%20x/")
    assert told["UV_FIND_LINKS"] == "/a,/b"
    assert (
        sources({**environ, "PIP_INDEX_URL": "https://variable/"}).variables["UV_DEFAULT_INDEX"] == "https://variable/"
    )


def test_a_file_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    chosen = tmp_path / "pip.conf"
    chosen.write_text("index-url = https://no-section/\n")
    assert "UV_DEFAULT_INDEX" not in sources({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(chosen)}).variables
