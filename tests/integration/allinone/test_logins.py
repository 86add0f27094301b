from urllib.parse import urlsplit

import pytest

from tidemill.allinone.logins import service_passwords, service_urls
from tidemill.allinone.postgres import PostgresAddress
from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import Service

EMBEDDED = PostgresAddress(
    host="/data/socket", version="18.6", superuser_password="s", migrator_password="m"
).migrator_dsn
ELSEWHERE = "postgresql://admin:p%40ss@db.example:5433/tidemill?sslmode=require"


@pytest.mark.parametrize("migrator_url", [EMBEDDED, ELSEWHERE])
def test_each_service_gets_its_own_role_and_password_at_the_same_place(migrator_url: str) -> None:
    urls = service_urls(migrator_url)
    before = urlsplit(migrator_url)
    for service, url in urls.items():
        parts = urlsplit(url)
        assert parts.username == f"tidemill_{service}"
        assert (parts.hostname, parts.port, parts.path, parts.query) == (
            before.hostname,
            before.port,
            before.path,
            before.query,
        )
    assert len(set(service_passwords(urls).values())) == len(Service)


def test_two_installations_with_one_database_agree() -> None:
    assert service_urls(ELSEWHERE) == service_urls(ELSEWHERE)
    assert service_urls(ELSEWHERE) != service_urls(ELSEWHERE.replace("p%40ss", "other"))


def test_a_password_is_not_set_for_a_login_that_is_not_our_role() -> None:
    urls = {**service_urls(ELSEWHERE), Service.API: "postgresql://somebody:secret@db.example/tidemill"}
    assert Service.API not in service_passwords(urls)
    assert Service.WORKER in service_passwords(urls)


def test_a_url_without_password_is_refused() -> None:
    with pytest.raises(StartRefused, match="no password"):
        service_urls("postgresql://admin@db.example/tidemill")
