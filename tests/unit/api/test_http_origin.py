"""Who sent it: the address behind our own proxies, and no browser on behalf of another site."""

from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from tidemill.api.http.errors import Forbidden
from tidemill.api.http.origin import client_address, network_of, refuse_cross_site
from tidemill.api.settings import ApiSettings

SETTINGS = ApiSettings(base_url="https://tidemill.example.com/")


def a_request(headers: Sequence[tuple[str, str]] = (), peer: str = "10.0.0.1") -> web.Request:
    request: web.Request = make_mocked_request("POST", "/api/x", headers=CIMultiDict(headers))
    return request.clone(remote=peer)


@pytest.mark.parametrize(
    ("forwarded", "trusted", "expected"),
    [
        ([], (), "10.0.0.1"),
        (["1.2.3.4"], (), "10.0.0.1"),
        (["1.2.3.4"], ("10.0.0.0/8",), "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], ("10.0.0.0/8",), "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4, 10.0.0.7"], ("10.0.0.0/8",), "1.2.3.4"),
        (["6.6.6.6", "1.2.3.4"], ("10.0.0.0/8",), "1.2.3.4"),
        (["nonsense"], ("10.0.0.0/8",), "10.0.0.1"),
        (["10.0.0.9"], ("10.0.0.0/8",), "10.0.0.9"),
    ],
)
def test_only_our_own_proxies_say_who_is_behind_them(
    forwarded: list[str], trusted: tuple[str, ...], expected: str
) -> None:
    request = a_request([("X-Forwarded-For", each) for each in forwarded])
    assert client_address(request, ApiSettings(trusted_proxies=trusted).trusted_networks()) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Origin", "https://tidemill.example.com")],
        [("Origin", "http://localhost:8000"), ("Host", "localhost:8000")],
        [("Sec-Fetch-Site", "same-origin"), ("Origin", "https://tidemill.example.com")],
        [("Sec-Fetch-Site", "none")],
    ],
)
def test_our_own_pages_and_programs_pass(headers: list[tuple[str, str]]) -> None:
    refuse_cross_site(a_request(headers), SETTINGS)


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "https://evil.example.com")],
        [("Origin", "null")],
        [("Origin", "https://tidemill.example.com.evil.com")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "same-origin"), ("Origin", "https://evil.example.com")],
    ],
)
def test_other_sites_do_not(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Forbidden):
        refuse_cross_site(a_request([("Host", "tidemill.internal"), *headers]), SETTINGS)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_stands_for_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
