"""Tokens, passwords and how often one may fail."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from argon2 import PasswordHasher

from tidemill.api.http.limits import Attempts
from tidemill.api.http.policy import Credential, Source, credential_of
from tidemill.api.tokens import rules
from tidemill.api.users.guessing import PER_ACCOUNT_AND_ADDRESS, PER_ADDRESS, WITHIN, Guesses
from tidemill.api.users.passwords import Passwords
from tidemill.api.users.rules import is_username, normal_email, username_from

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class StillClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 23, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, span: timedelta) -> None:
        self.time += span


def a_request(headers: Mapping[str, str], path: str = "/api/x") -> web.Request:
    request: web.Request = make_mocked_request("GET", path, headers=headers)
    return request


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        ({}, "/api/x", None),
        ({"Authorization": "Bearer abc"}, "/api/x", Credential("abc", Source.BEARER)),
        ({"Authorization": "Bearer abc "}, "/api/x", Credential("abc", Source.BEARER)),
        ({"Authorization": "bearer  abc"}, "/api/x", Credential("abc", Source.BEARER)),
        ({"Authorization": "Bearer "}, "/api/x", None),
        ({"Authorization": "Basic abc"}, "/api/x", None),
        ({"Cookie": "token=abc; other=1"}, "/api/x", Credential("abc", Source.COOKIE)),
        ({}, "/api/x?token=abc", Credential("abc", Source.QUERY)),
        ({"Cookie": "token=abc"}, "/api/x?token=def", Credential("def", Source.QUERY)),
        ({"Cookie": "token=abc", "Authorization": "Bearer def"}, "/api/x", Credential("def", Source.BEARER)),
    ],
)
def test_a_token_travels_in_three_ways(headers: dict[str, str], path: str, expected: Credential | None) -> None:
    assert credential_of(a_request(headers, path)) == expected


def test_a_token_is_long_random_and_kept_as_its_digest() -> None:
    tokens = [rules.mint() for _ in range(200)]
    assert len({each.text for each in tokens}) == 200
    for each in tokens:
        assert each.text.isalnum()
        assert len(each.text) == 43
        assert each.prefix == each.text[:10]
        assert each.hash == hashlib.sha256(each.text.encode()).digest()
        assert not rules.is_job_token(each.text)


async def test_a_password_is_verified_and_never_stored() -> None:
    passwords = Passwords(CHEAP)
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, "correct horse")
    assert not await passwords.verify(stored, "wrong")
    passwords.close()


async def test_nobody_logs_in_as_somebody_unknown() -> None:
    hashed: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            hashed.append(str(hash))
            return super().verify(hash, password)

    passwords = Passwords(Watched(time_cost=1, memory_cost=8, parallelism=1))
    assert not await passwords.verify(None, "anything")
    # The same work is done for them as for everybody else.
    assert len(hashed) == 1
    assert hashed[0].startswith("$argon2id$")
    passwords.close()


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$broken"])
async def test_a_broken_hash_lets_nobody_in(stored: str) -> None:
    passwords = Passwords(CHEAP)
    assert not await passwords.verify(stored, "plain")
    passwords.close()


def test_failures_are_limited_by_key_until_the_window_has_passed() -> None:
    clock = StillClock()
    attempts = Attempts(clock, allowed=3, window=timedelta(minutes=5))
    for _ in range(3):
        assert attempts.wait_for("ann") is None
        attempts.begin("ann")
    assert attempts.wait_for("ann") == timedelta(minutes=5)
    assert attempts.wait_for("bob") is None
    clock.time += timedelta(minutes=5)
    assert attempts.wait_for("ann") is None


def test_a_success_forgets_the_failures_before_it() -> None:
    attempts = Attempts(StillClock(), allowed=2, window=timedelta(minutes=5))
    attempts.begin("ann")
    attempts.succeeded("ann")
    attempts.begin("ann")
    assert attempts.wait_for("ann") is None


def test_an_attempt_that_was_none_is_taken_back_and_the_others_stay() -> None:
    attempts = Attempts(StillClock(), allowed=2, window=timedelta(minutes=5))
    for _ in range(2):
        attempts.begin("ann")
    assert attempts.wait_for("ann") is not None
    attempts.forgive("ann")
    attempts.forgive("bob")
    assert attempts.wait_for("ann") is None
    attempts.begin("ann")
    assert attempts.wait_for("ann") is not None


def test_a_guesser_is_not_freed_by_an_account_of_their_own() -> None:
    guesses = Guesses(StillClock())
    for number in range(PER_ADDRESS):
        guesses.begin(f"victim{number}@x", "203.0.113.7")
    assert guesses.wait_for("own@x", "203.0.113.7") is not None
    guesses.begin("own@x", "203.0.113.7")
    guesses.succeeded("own@x", "203.0.113.7")
    assert guesses.wait_for("another@x", "203.0.113.7") is not None
    assert guesses.wait_for("another@x", "203.0.113.8") is None


def test_only_the_first_refusal_of_each_limit_is_told_as_such_in_its_window() -> None:
    clock = StillClock()
    guesses = Guesses(clock)

    def refused(email: str) -> bool:
        return guesses.first_refusal(email, "203.0.113.7")

    assert not refused("ann@x")
    for _ in range(PER_ACCOUNT_AND_ADDRESS):
        guesses.begin("ann@x", "203.0.113.7")
    assert [refused("ann@x") for _ in range(3)] == [True, False, False]
    for number in range(PER_ADDRESS):
        guesses.begin(f"victim{number}@x", "203.0.113.7")
    assert [refused(f"stranger{number}@x") for number in range(3)] == [True, False, False]
    clock.time += WITHIN
    for _ in range(PER_ACCOUNT_AND_ADDRESS):
        assert guesses.wait_for("ann@x", "203.0.113.7") is None
        guesses.begin("ann@x", "203.0.113.7")
    assert [refused("ann@x") for _ in range(2)] == [True, False]


def test_many_keys_do_not_grow_memory_for_ever() -> None:
    attempts = Attempts(StillClock(), allowed=1, window=timedelta(minutes=5))
    for number in range(20_000):
        attempts.begin(number)
    assert attempts.wait_for(0) is None
    assert attempts.wait_for(19_999) is not None


@pytest.mark.parametrize(
    ("email", "name"),
    [("ann@example.com", "ann"), ("ann.b+c@example.com", "ann_b_c"), ("+@x", "user"), ("é@x", "user")],
)
def test_a_username_is_made_from_an_email(email: str, name: str) -> None:
    assert username_from(email) == name
    assert is_username(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "a" * 51, "ä", "a\n"])
def test_names_that_would_break_a_path_are_none(name: str) -> None:
    assert not is_username(name)


def test_an_email_has_one_spelling() -> None:
    assert normal_email(" Ann@Example.COM ") == "ann@example.com"
