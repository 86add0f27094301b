from __future__ import annotations

import pytest

from tidemill.worker.network import UnknownNetworkError, endpoints, policy
from tidemill.worker.sandbox.settings import Network


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        ("def main(): pass", "all", "all"),
        ("def main(): pass", "none", "none"),
        ("# network: none\ndef main(): pass", "all", "none"),
        ("#!/bin/bash\n# says hello\n\n#network:none\necho hello", "all", "none"),
        ("# network: all\ndef main(): pass", "none", "none"),
        ("# network: none\n# network: all\ndef main(): pass", "all", "none"),
        ("def main():\n    pass\n# network: none", "all", "all"),
        ("# a network: none\n", "all", "all"),
    ],
)
def test_a_script_may_ask_for_less_network_and_never_gets_more(code: str, given: Network, expected: Network) -> None:
    assert policy(code, given) == expected


@pytest.mark.parametrize("word", ["", "None", "some", "10.0.0.0/8"])
def test_a_network_that_does_not_exist_is_refused(word: str) -> None:
    with pytest.raises(UnknownNetworkError, match="neither of all, none"):
        policy(f"# network: {word}\ndef main(): pass", "all")


def test_urls_become_hosts_and_ports_each_once() -> None:
    urls = (
        "http://localhost:8000",
        "https://t.example",
        "http://[::1]:80",
        "http://t.example/x",
        "http://localhost:8000",
    )
    assert endpoints(urls) == (("localhost", 8000), ("t.example", 443), ("::1", 80), ("t.example", 80))
