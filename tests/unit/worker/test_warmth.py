import pytest

from tidemill.worker import warmth


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("# warm\ndef main(): pass", True),
        ("#!/usr/bin/env python3\n# counts\n\n#warm\nimport os", True),
        ("# warm welcome\ndef main(): pass", False),
        ("# Warm\ndef main(): pass", False),
        ("import os\n# warm\n", False),
        ("def main():\n    # warm\n    pass", False),
        ("", False),
    ],
)
def test_a_script_asks_for_a_warm_process_by_a_line_of_its_own_at_its_top(code: str, expected: bool) -> None:
    assert warmth.is_annotated(code) is expected
