"""What a lock may say, and which interpreters a wish means."""

import pytest

from tidemill.worker.environments import lock
from tidemill.worker.environments.failure import NotInstallable
from tidemill.worker.environments.interpreters import allows

HASH = "--hash=sha256:" + "0" * 64


def test_a_lock_is_read_as_uv_writes_it() -> None:
    text = (
        f"# py: 3.11\na==1.0 \\\n    {HASH} \\\n    {HASH}\nb[x]==2.0.post1 ; python_version < '3.13' \\\n    {HASH}\n"
    )
    found = lock.read(text)
    assert found.python == "3.11"
    assert found.pins == (f"a==1.0 {HASH} {HASH}", f"b[x]==2.0.post1 ; python_version < '3.13' {HASH}")
    assert found.hashed
    assert lock.read(text.replace("\n", "\r\n")) == found


def test_a_lock_of_another_maker_has_no_hashes() -> None:
    found = lock.read("# py311\na==1.0  # via b\n# comment\n\nb==2\n")
    assert (found.python, found.pins, found.hashed) == ("3.11", ("a==1.0", "b==2"), False)


def test_an_empty_lock_wants_nothing() -> None:
    assert lock.read("") == lock.Lock()
    assert lock.read("# py: >=3.12") == lock.Lock(python=">=3.12")


@pytest.mark.parametrize(
    "line",
    [
        "a>=1",
        "a",
        "-r /etc/passwd",
        "--index-url https://evil/",
        "-e .",
        "./a",
        "a @ https://evil/a.whl",
        "a==1 @ file:///etc",
        "https://evil/a.whl",
        f"a==1 --index-url=https://evil/ {HASH}",
        "a==1 --hash=sha256:xyz",
        "# py: ../../bin",
    ],
)
def test_a_lock_says_nothing_but_versions(line: str) -> None:
    with pytest.raises(NotInstallable, match="lock"):
        lock.read(line)


@pytest.mark.parametrize(
    "line",
    [
        "a==1;" + " " * 2_000_000 + "@",
        "a==1;" + " x" * 30_000 + "@",
        "a==1;" + " --hash=a" * 7_000 + "@",
        f"a==1 {HASH}" + " --hash=a:0" * 5_000 + "@",
        "a" + "-" * 60_000 + "@",
    ],
    ids=["blanks", "words", "halves", "hashes", "name"],
)
def test_a_line_that_nearly_pins_a_package_is_refused_without_trying_every_division(line: str) -> None:
    with pytest.raises(NotInstallable, match="pins no package"):
        lock.read(line)


def test_a_lock_has_no_endless_line_and_not_endless_packages() -> None:
    assert lock.read(f"a==1 {' '.join([HASH] * 700)}").hashed
    with pytest.raises(NotInstallable, match="too long"):
        lock.read(f"a==1 {' '.join([HASH] * 1000)}")
    with pytest.raises(NotInstallable, match="1000"):
        lock.read("a==1\n" * 1001)


@pytest.mark.parametrize(
    ("wanted", "fits", "does_not"),
    [
        ("3.12", ("3.12.0", "3.12.9"), ("3.11.9", "3.1.2", "3.13.0")),
        ("==3.12.*", ("3.12.4",), ("3.13.0",)),
        (">=3.11", ("3.11.0", "3.14.0"), ("3.10.9",)),
        (">=3.11,<3.13", ("3.12.9",), ("3.13.0", "3.10.0")),
        ("~=3.11", ("3.11.0", "3.13.0"), ("3.10.0",)),
        ("~=3.11.2", ("3.11.2", "3.11.9"), ("3.11.1", "3.12.0")),
        ("<=3.12", ("3.12.0", "3.11.1"), ("3.13.0",)),
        (">3.11", ("3.12.0",), ("3.11.5",)),
        ("!=3.12", ("3.11.0",), ("3.12.1",)),
        ("3", ("3.11.0",), ()),
    ],
)
def test_a_wish_for_an_interpreter(wanted: str, fits: tuple[str, ...], does_not: tuple[str, ...]) -> None:
    assert [allows(wanted, version) for version in fits] == [True] * len(fits)
    assert [allows(wanted, version) for version in does_not] == [False] * len(does_not)
