"""What the api needs to know beyond the frame's settings."""

import ipaddress
from datetime import timedelta
from typing import Annotated

import msgspec

from tidemill.chassis.errors import StartRefused
from tidemill.chassis.settings import PREFIX, doc

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the api listens, whom it trusts, and its limits."""

    port: Annotated[int, doc("port of the HTTP API", ge=0, le=65535)] = 8000
    bind: Annotated[str, doc("address to listen on; 0.0.0.0 opens it to the network")] = "127.0.0.1"
    base_url: Annotated[
        str | None,
        doc("the URL by which people and jobs reach the api, without /api; default http://localhost:PORT"),
    ] = None
    admin_email: Annotated[str, doc("the first superadmin, made when nobody is there yet")] = "admin@tidemill.local"
    admin_password: Annotated[
        str | None,
        doc("the first superadmin's password; default a random one, written to HOME/admin-password", secret=True),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...], doc("networks whose X-Forwarded-For is believed, such as 10.0.0.0/8")
    ] = ()
    strict: Annotated[bool, doc("refuse unknown fields everywhere instead of naming them in Tidemill-Ignored")] = False
    request_bytes: Annotated[int, doc("the largest body of a request", ge=1024)] = 32 * 1024 * 1024
    wait_result_timeout: Annotated[timedelta, doc("how long a synchronous run is waited for")] = timedelta(minutes=10)
    session_ttl: Annotated[timedelta, doc("how long a login lasts")] = timedelta(days=7)

    def __post_init__(self) -> None:
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise StartRefused(f"{PREFIX}BASE_URL={self.base_url!r} is not allowed: it begins with http:// or https://")
        if not _is_email(self.admin_email):
            raise StartRefused(f"{PREFIX}ADMIN_EMAIL={self.admin_email!r} is not allowed: an email address")
        if self.session_ttl <= timedelta(0):
            raise StartRefused(f"{PREFIX}SESSION_TTL is not allowed: longer than nothing")
        if self.wait_result_timeout <= timedelta(0):
            raise StartRefused(f"{PREFIX}WAIT_RESULT_TIMEOUT is not allowed: longer than nothing")
        self.trusted_networks()

    @property
    def public_url(self) -> str:
        """The URL by which people and jobs reach us, without a slash at its end."""
        return (self.base_url or f"http://localhost:{self.port}").rstrip("/")

    def trusted_networks(self) -> tuple[Network, ...]:
        """Return the networks of our own proxies."""
        networks = []
        for each in self.trusted_proxies:
            try:
                networks.append(ipaddress.ip_network(each, strict=False))
            except ValueError:
                raise StartRefused(
                    f"{PREFIX}TRUSTED_PROXIES={each!r} is not allowed: addresses or networks with commas between them"
                ) from None
        return tuple(networks)


def _is_email(text: str) -> bool:
    name, _, host = text.partition("@")
    return bool(name) and bool(host) and not any(each.isspace() for each in text)
