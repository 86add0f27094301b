import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def dependencies() -> dict[str, Any]:
    """The names of the installer, which is a script and in no package."""
    return runpy.run_path(str(ROOT / "deploy" / "allinone" / "dependencies.py"), run_name="dependencies")


def test_the_settings_of_pip_reach_uv(dependencies: dict[str, Any]) -> None:
    translate: Callable[..., Mapping[str, str]] = dependencies["as_uv_reads_them"]
    settings = {"index-url": "https://a/simple", "extra-index-url": "https://b\nhttps://c", "find-links": "/x /y"}
    assert translate({**settings, "cert": "/ca.pem", "unknown": "1"}, {}) == {
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": "https://b https://c",
        "UV_FIND_LINKS": "/x,/y",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/ca.pem",
    }
    assert "UV_DEFAULT_INDEX" not in translate(settings, {"UV_DEFAULT_INDEX": "https://mine"})


def test_the_environment_of_pip_goes_before_its_files(
    dependencies: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file/simple\ncert = /global.pem\n[install]\ncert = /install.pem\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment/simple")
    settings = dependencies["pip_settings"]()
    assert settings["index-url"] == "https://environment/simple"
    assert settings["cert"] == "/install.pem"


def test_the_lock_names_uv_with_hashes(dependencies: dict[str, Any]) -> None:
    entry: str = dependencies["locked_uv"]()
    assert entry.startswith("uv==")
    assert "--hash=sha256:" in entry
    assert entry.count("==") == 1


def test_every_package_of_ours_is_installed(dependencies: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/pyproject.toml")}
    folders |= {path.parent.relative_to(ROOT) for path in ROOT.glob("*/*/pyproject.toml") if ".venv" not in path.parts}
    assert set(dependencies["members"]()) == folders


def test_make_help_lists_every_target_that_is_for_people() -> None:
    listed = make("help")
    for target in ("up", "test", "check", "unit", "integration", "e2e", "bench", "lock", "format", "clean", "help"):
        assert f"make {target} " in listed


def test_a_port_in_the_environment_is_not_meant_for_us() -> None:
    command = ("--eval", "show: ; @echo port=$(TIDEMILL_PORT)", "show")
    assert make(*command, PORT="3000").strip() == "port="
    assert make("PORT=3000", *command).strip() == "port=3000"


def test_without_a_suitable_python_one_line_says_what_to_install(tmp_path: Path) -> None:
    ended = bootstrap(tmp_path, python="exit 1")
    assert ended.returncode == 1
    assert "Python 3.11 or newer is missing" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_python_without_venv_is_told_with_the_package_to_install(tmp_path: Path) -> None:
    ended = bootstrap(tmp_path, python='case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac')
    assert ended.returncode == 1
    assert "apt-get install python3.12-venv" in ended.stderr
    assert ended.stderr.count("\n") == 1


def make(*arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "MAKE"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=True
    ).stdout


def bootstrap(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap in a copy of the tree, on a machine whose only Python is this shell script."""
    copy = folder / "tree" / "deploy" / "allinone"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "allinone" / "bootstrap", copy)
    script = (copy / "bootstrap").read_text().replace("/usr/local/bin/python3 /usr/bin/python3", "")
    (copy / "bootstrap").write_text(script)
    programs = folder / "programs"
    programs.mkdir()
    for name in ("sh", "cat", "cksum", "dirname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (programs / "python3").write_text(f"#!/bin/sh\n{python}\n")
    (programs / "python3").chmod(0o755)
    return subprocess.run(
        [copy / "bootstrap"],
        env={"PATH": str(programs), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
