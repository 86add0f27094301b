"""Where a request comes from: which address, and whether a browser was made to send it by another site."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from aiohttp import web

from tidemill.api.http.errors import Forbidden
from tidemill.api.settings import ApiSettings, Network


def client_address(request: web.Request, trusted: Sequence[Network]) -> str:
    """Return the caller's address; X-Forwarded-For counts only as far as our own proxies wrote it."""
    address = request.remote or ""
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    while forwarded and _is_within(address, trusted):
        claimed = forwarded.pop().strip()
        if not _is_address(claimed):
            break
        address = claimed
    return address


def network_of(address: str) -> str:
    """Return whom an address stands for: of IPv6 the /64, because whoever has one address has all of them."""
    if not _is_address(address):
        return address
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((parsed, 64), strict=False))


def refuse_cross_site(request: web.Request, settings: ApiSettings) -> None:
    """Raise Forbidden when a browser sent this on behalf of another site."""
    if is_cross_site(request, settings):
        raise Forbidden("This request comes from another site.")


def is_cross_site(request: web.Request, settings: ApiSettings) -> bool:
    """Return whether a browser sent this on behalf of another site; what is no browser sends no such header."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and not _is_ours(origin, request, settings)


def _is_ours(origin: str, request: web.Request, settings: ApiSettings) -> bool:
    if origin.rstrip("/").lower() == _origin_of(settings.public_url):
        return True
    # A browser that reached us by another name (an address, a tunnel) names the same host in both headers.
    return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower() != ""


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _is_within(address: str, networks: Sequence[Network]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in each for each in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
