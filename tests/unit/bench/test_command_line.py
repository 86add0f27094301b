"""Only a whole run may replace the committed results."""

import pytest

from tests.bench.__main__ import read


def test_without_arguments_everything_is_measured() -> None:
    assert read([]).is_whole


@pytest.mark.parametrize(
    "arguments", [["--only", "p1"], ["--shape", "all-in-one"], ["--peers", "none"], ["--samples", "20"]]
)
def test_a_part_is_not_the_whole(arguments: list[str]) -> None:
    assert not read(arguments).is_whole


def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(["--only", "p6"])
    assert "there is no 'p6'; known are p1," in capsys.readouterr().err
