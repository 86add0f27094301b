"""What the scheduler needs of others who may be there in more than one shape."""

from typing import Protocol

import msgspec

from tidemill.scheduler.store.flows import Standing


class NotThere(Exception):
    """Why there is no such variable or resource for this flow, in half a sentence."""


class Secrets(Protocol):
    """The variables and resources of a workspace, as far as a flow may read them."""

    async def variable(self, workspace_id: str, path: str, standing: Standing, /) -> msgspec.Raw:
        """Return a variable's value as JSON; raises NotThere."""
        ...

    async def resource(self, workspace_id: str, path: str, standing: Standing, /) -> msgspec.Raw:
        """Return a resource's value as JSON; raises NotThere."""
        ...
