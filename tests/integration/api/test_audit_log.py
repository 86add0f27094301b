"""The audit log as clients see it, over a chain that spans many days."""

from tests.integration.api.conftest import Api
from tests.support.database import connected

_A_ROW_FOR_EACH_DAY = """
    INSERT INTO audit.entry
        (event_id, workspace_id, recorded_at, at, username, email, operation, action_kind, resource, parameters)
    SELECT gen_random_uuid(), $1, d.day, d.day, 'ann', 'ann@example.com', 'jobs.run', 'Execute', d.day::date::text, '{}'
    FROM generate_series(date_trunc('day', now(), 'UTC') - interval '40 days', now(), '1 day') d (day) ORDER BY d.day
"""


async def test_entries_of_many_days_are_listed_newest_first_and_found_by_id(api: Api) -> None:
    workspace = await api.workspace()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    async with connected(api.urls.admin) as admin:
        await admin.execute("SELECT audit.make_day(current_date - n) FROM generate_series(0, 40) n")
        await admin.execute(_A_ROW_FOR_EACH_DAY, workspace)
    listed = (await boss.get(f"/w/{workspace}/audit/list?per_page=100")).json
    assert len(listed) == 41
    assert [each["resource"] for each in listed] == sorted((each["resource"] for each in listed), reverse=True)
    older = (await boss.get(f"/w/{workspace}/audit/list?per_page=10&before_id={listed[9]['id']}")).json
    assert older == listed[10:20]
    for entry in (listed[0], listed[-1]):
        assert (await boss.get(f"/w/{workspace}/audit/get/{entry['id']}")).json == entry
