"""The api's settings: defaults that are safe, and a refusal that names what is wrong."""

from datetime import timedelta

import pytest

from tidemill.api.settings import ApiSettings
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.settings import describe, read


def test_the_defaults_open_nothing_to_the_network() -> None:
    settings = read(ApiSettings, {})
    assert settings.bind == "127.0.0.1"
    assert settings.port == 8000
    assert settings.public_url == "http://localhost:8000"
    assert settings.trusted_networks() == ()
    assert settings.wait_result_timeout == timedelta(minutes=10)


def test_settings_come_from_the_environment() -> None:
    settings = read(
        ApiSettings,
        {
            "TIDEMILL_PORT": "9000",
            "TIDEMILL_BASE_URL": "https://tidemill.example.com/",
            "TIDEMILL_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "TIDEMILL_STRICT": "1",
        },
    )
    assert settings.public_url == "https://tidemill.example.com"
    assert [str(each) for each in settings.trusted_networks()] == ["10.0.0.0/8", "::1/128"]
    assert settings.strict


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEMILL_PORT", "65536"),
        ("TIDEMILL_BASE_URL", "tidemill.example.com"),
        ("TIDEMILL_ADMIN_EMAIL", "admin"),
        ("TIDEMILL_TRUSTED_PROXIES", "proxy.internal"),
        ("TIDEMILL_SESSION_TTL", "0s"),
        ("TIDEMILL_WAIT_RESULT_TIMEOUT", "soon"),
        ("TIDEMILL_REQUEST_BYTES", "12"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(StartRefused, match=name):
        read(ApiSettings, {name: value})


def test_the_admins_password_is_never_shown() -> None:
    lines = {line.name: line for line in describe(read(ApiSettings, {"TIDEMILL_ADMIN_PASSWORD": "hunter2"}))}
    assert lines["TIDEMILL_ADMIN_PASSWORD"].value == "(set)"
    assert "hunter2" not in repr(lines)


def test_every_setting_says_what_it_is_for() -> None:
    assert all(line.description for line in describe(ApiSettings()))
