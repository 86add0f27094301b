"""A job's own token speaks for it, for as long as its claim lives."""

import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.support.queue import AT_ONCE, Claim, Queue, a_job

ENDS: Mapping[str, Callable[[Queue, Claim], Awaitable[Any]]] = {
    "finished": lambda queue, claim: queue.finish(claim),
    "released": lambda queue, claim: queue.release(claim),
    "canceled": lambda queue, claim: queue.cancel(claim.job_id, force=True),
    "lost": lambda queue, claim: queue.tick(lease=AT_ONCE),
}
"""Everything that ends a claim."""


async def test_a_token_speaks_for_its_job(queue: Queue) -> None:
    claim = await queue.a_claim(permissions={"is_admin": True, "groups": ["all"]})
    speaker = await queue.verify(claim.row["token"])
    assert speaker is not None
    assert dict(speaker) == {
        "job_id": claim.job_id,
        "workspace_id": "w",
        "created_by": "ann",
        "permissioned_as": "u/ann",
        "email": "ann@example.com",
        "permissions": '{"is_admin": true, "groups": ["all"]}',
    }


@pytest.mark.parametrize("end", ENDS)
async def test_a_token_dies_with_its_claim(queue: Queue, end: str) -> None:
    claim = await queue.a_claim()
    await ENDS[end](queue, claim)
    assert await queue.verify(claim.row["token"]) is None
    if again := await queue.claim():
        assert again.row["token"] != claim.row["token"]
        assert await queue.verify(claim.row["token"]) is None
        assert await queue.verify(again.row["token"]) is not None


async def test_a_token_lives_on_while_its_job_is_asked_to_stop(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id)
    assert await queue.verify(claim.row["token"]) is not None


async def test_no_letter_of_a_token_can_be_changed(queue: Queue) -> None:
    token = (await queue.a_claim()).row["token"]
    for place, letter in enumerate(token):
        other = "b" if letter == "a" else "a"
        assert await queue.verify(token[:place] + other + token[place + 1 :]) is None


async def test_the_token_of_one_job_does_not_speak_for_another(queue: Queue) -> None:
    one, two = (await queue.a_claim()).row["token"], (await queue.a_claim()).row["token"]
    ours, theirs = one.split("_"), two.split("_")
    assert await queue.verify("_".join([*ours[:2], theirs[2], ours[3]])) is None


@pytest.mark.parametrize("rubbish", ["", "tmj_", "tmj_999999999_x", "tmj_1_" + "0" * 32 + "_" + "0" * 64, "jwt_x", "'"])
async def test_rubbish_speaks_for_nobody(queue: Queue, rubbish: str) -> None:
    await queue.a_claim()
    assert await queue.verify(rubbish) is None


async def test_a_token_is_signed_as_rfc_2104_says(queue: Queue) -> None:
    claim = await queue.a_claim()
    key = await queue.look.fetchrow("SELECT no, inner_pad FROM queue.token_key ORDER BY no DESC LIMIT 1")
    assert key is not None
    secret = bytes(byte ^ 0x36 for byte in key["inner_pad"])
    signature = hmac.new(secret, claim.job_id.bytes + claim.key.bytes, hashlib.sha256).hexdigest()
    assert claim.row["token"] == f"tmj_{key['no']}_{claim.job_id.hex}_{signature}"


async def test_a_repeated_claim_has_the_same_token_even_when_the_key_has_changed_in_between(queue: Queue) -> None:
    await queue.request(a_job())
    key = uuid.uuid4()
    first = await queue.claim(key=key)
    await queue.look.execute("SELECT queue.make_token_key()")
    second = await queue.claim(key=key)
    assert first == second


async def test_a_new_key_is_made_each_day_and_an_old_one_stays_while_a_claim_of_its_time_runs(queue: Queue) -> None:
    await queue.look.execute("DELETE FROM queue.token_key")
    await queue.prepare_days(0)
    await queue.look.execute("UPDATE queue.token_key SET created_at = created_at - interval '9 days'")
    claim = await queue.a_claim()
    # The scheduler was away for days; the job was claimed in between.
    await queue.look.execute("UPDATE queue.live_job SET claimed_at = claimed_at - interval '4 days'")
    for _ in range(3):
        await queue.prepare_days(0)
        await queue.look.execute("UPDATE queue.token_key SET created_at = created_at - interval '25 hours'")
    assert await queue.verify(claim.row["token"]) is not None
    await queue.finish(claim)
    before = await queue.look.fetchval("SELECT count(*) FROM queue.token_key")
    await queue.prepare_days(0)
    assert await queue.look.fetchval("SELECT count(*) FROM queue.token_key") < before


async def test_no_service_can_read_the_keys(queue: Queue) -> None:
    for pool in (queue.api, queue.worker, queue.scheduler):
        assert not await pool.fetchval("SELECT has_any_column_privilege('queue.token_key', 'SELECT')")
