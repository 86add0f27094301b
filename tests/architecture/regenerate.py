"""Write anew what is made from the database and the catalog: grants, SCHEMA.md, asyncapi.yaml.

python -m tests.architecture.regenerate
"""

import asyncio
import secrets
import sys

from tests.architecture.grants import present_grants
from tests.architecture.repository import ASYNCAPI, GRANTS, MIGRATIONS, ROOT, SCHEMA
from tests.architecture.schema_md import present_schema
from tests.support.database import Databases, connected
from tests.support.servers import postgres_server
from tidemill.shared.asyncapi import as_yaml


async def main() -> None:
    """Build a database from nothing and describe it."""
    async with postgres_server() as address:
        urls = await Databases(address, secrets.token_hex(16)).migrated("tidemill_described")
        async with connected(urls.admin) as admin:
            GRANTS.write_text(await present_grants(admin), encoding="utf-8")
            SCHEMA.write_text(await present_schema(admin, MIGRATIONS), encoding="utf-8")
    ASYNCAPI.write_text(as_yaml(), encoding="utf-8")
    for file in (GRANTS, SCHEMA, ASYNCAPI):
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")


if __name__ == "__main__":
    asyncio.run(main())
