"""Settings: read in one place, refused with name, value and what is allowed."""

from datetime import timedelta
from pathlib import Path

import pytest

from tidemill.chassis.errors import StartRefused
from tidemill.chassis.settings import ChassisSettings, describe, read, refuse_unknown, spell
from tidemill.shared.catalog import Service


def test_without_variables_the_defaults_stand() -> None:
    assert read(ChassisSettings, {}) == ChassisSettings()


def test_values_are_read_by_their_types() -> None:
    settings = read(
        ChassisSettings,
        {"TIDEMILL_HOME": "/srv/t", "TIDEMILL_LEASE": "10s", "TIDEMILL_BEAT": "500ms", "TIDEMILL_HEALTH_PORT": "9000"},
    )
    assert settings.home == Path("/srv/t")
    assert settings.lease == timedelta(seconds=10)
    assert settings.beat == timedelta(milliseconds=500)
    assert settings.health_port == 9000


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert read(ChassisSettings, {"TIDEMILL_LEASE": ""}).lease == ChassisSettings().lease


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("TIDEMILL_HEALTH_PORT", "70000", "a whole number from 0 to 65535"),
        ("TIDEMILL_HEALTH_PORT", "http", "a whole number from 0 to 65535"),
        ("TIDEMILL_QUEUE_TYPE", "stream", "classic or quorum"),
        ("TIDEMILL_LEASE", "4", "a span such as 500ms, 4s, 10m, 12h or 30d"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(StartRefused) as refused:
        read(ChassisSettings, {name: value})
    assert str(refused.value) == f"{name}={value!r} is not allowed: {allowed}"


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(StartRefused, match=r"TIDEMILL_BEAT=3s must be less than half of TIDEMILL_LEASE=4s"):
        read(ChassisSettings, {"TIDEMILL_BEAT": "3s"})


def test_a_misspelt_variable_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(StartRefused, match="TIDEMILL_LOG_LEVL is not a setting; did you mean TIDEMILL_LOG_LEVEL"):
        refuse_unknown([ChassisSettings], {"TIDEMILL_LOG_LEVL": "debug"})


def test_secrets_are_never_shown() -> None:
    url = "postgresql://me:hunter2@db/tidemill"
    lines = describe(read(ChassisSettings, {"TIDEMILL_DATABASE_URL": url}))
    assert "hunter2" not in repr(lines)
    (line,) = [each for each in lines if each.name == "TIDEMILL_DATABASE_URL"]
    assert line.value == "(set)"


def test_a_service_falls_back_to_the_common_database() -> None:
    settings = read(ChassisSettings, {"TIDEMILL_DATABASE_URL": "a", "TIDEMILL_API_DATABASE_URL": "b"})
    assert settings.database_url_of(Service.API) == "b"
    assert settings.database_url_of(Service.WORKER) == "a"
    with pytest.raises(StartRefused, match="TIDEMILL_WORKER_DATABASE_URL or TIDEMILL_DATABASE_URL"):
        ChassisSettings().database_url_of(Service.WORKER)


def test_a_service_falls_back_to_the_common_broker() -> None:
    settings = read(ChassisSettings, {"TIDEMILL_AMQP_URL": "a", "TIDEMILL_API_AMQP_URL": "b"})
    assert settings.amqp_url_of(Service.API) == "b"
    assert settings.amqp_url_of(Service.WORKER) == "a"
    with pytest.raises(StartRefused, match="TIDEMILL_WORKER_AMQP_URL or TIDEMILL_AMQP_URL"):
        ChassisSettings().amqp_url_of(Service.WORKER)


@pytest.mark.parametrize(
    ("value", "spelt"),
    [(timedelta(seconds=1.3), "1.3s"), (timedelta(days=30), "30d"), (True, "true"), (("a", "b"), "a,b"), (None, "")],
)
def test_values_are_spelt_as_they_are_written(value: object, spelt: str) -> None:
    assert spell(value) == spelt
