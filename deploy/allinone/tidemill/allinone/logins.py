"""The login of each service, derived from the one that may migrate the database."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import Service


def role_of(service: Service) -> str:
    """Return the role by which a service logs in."""
    return f"tidemill_{service.value}"


def service_urls(migrator_url: str) -> Mapping[Service, str]:
    """Return a URL for each service: the same place, its own role and a password that only the migrator can know.

    Derived, not random: two installations that share a database by the same URL agree without talking to each other.
    """
    parts = urlsplit(migrator_url)
    if not parts.password:
        raise StartRefused("the database URL has no password, from which those of the services are made: add one to it")
    key = unquote(parts.password).encode()
    place = parts.netloc.rpartition("@")[2]
    urls = {}
    for service in Service:
        role = role_of(service)
        password = hmac.new(key, role.encode(), hashlib.sha256).hexdigest()
        # Not `geturl`, which drops the empty host of an address that names a socket.
        urls[service] = f"{parts.scheme}://{role}:{password}@{place}{parts.path}" + (parts.query and f"?{parts.query}")
    return urls


def service_passwords(urls: Mapping[Service, str]) -> Mapping[Service, str]:
    """Return the passwords to set: of the services that log in by their own role, whoever has chosen the URL."""
    passwords = {}
    for service, url in urls.items():
        parts = urlsplit(url)
        if parts.username == role_of(service) and parts.password:
            passwords[service] = unquote(parts.password)
    return passwords
