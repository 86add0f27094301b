"""Variables and resources of workspaces that have none."""

import msgspec

from tidemill.scheduler.ports import NotThere
from tidemill.scheduler.store.flows import Standing


class NoSecrets:
    """What is known of variables and resources as long as a workspace has none."""

    async def variable(self, _workspace_id: str, _path: str, _standing: Standing, /) -> msgspec.Raw:
        """Raise NotThere."""
        raise NotThere("a workspace has no variables yet")

    async def resource(self, _workspace_id: str, _path: str, _standing: Standing, /) -> msgspec.Raw:
        """Raise NotThere."""
        raise NotThere("a workspace has no resources yet")
