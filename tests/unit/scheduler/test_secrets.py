"""What expressions get of variables and resources, whoever keeps them."""

from collections.abc import Mapping

import msgspec
import pytest

from tidemill.scheduler.ports import NotThere, Secrets
from tidemill.scheduler.store.flows import Standing
from tidemill.scheduler.walking.secrets import NoSecrets

ANN = Standing(
    version=0, state="suspended", permissioned_as="u/ann", permissions={"username": "ann", "is_admin": False}
)


class KeptInMemory:
    """Variables and resources of one workspace, which everybody reads below their own path."""

    def __init__(self, variables: Mapping[str, str], resources: Mapping[str, object]) -> None:
        self._variables = variables
        self._resources = resources

    async def variable(self, _workspace_id: str, path: str, standing: Standing, /) -> msgspec.Raw:
        return self._found(self._variables, "variable", path, standing)

    async def resource(self, _workspace_id: str, path: str, standing: Standing, /) -> msgspec.Raw:
        return self._found(self._resources, "resource", path, standing)

    def _found(self, kept: Mapping[str, object], what: str, path: str, standing: Standing) -> msgspec.Raw:
        if path not in kept or not path.startswith(f"{standing.permissioned_as}/"):
            raise NotThere(f"there is no such {what}")
        return msgspec.Raw(msgspec.json.encode(kept[path]))


MEMORY = KeptInMemory({"u/ann/v": "text", "u/bob/v": "other"}, {"u/ann/r": {"host": "h"}})


@pytest.mark.parametrize("secrets", [NoSecrets(), MEMORY], ids=["none", "memory"])
@pytest.mark.parametrize("path", ["u/ann/absent", "u/bob/v", ""])
async def test_what_is_not_there_or_not_to_be_read_is_named_in_half_a_sentence(secrets: Secrets, path: str) -> None:
    for look in (secrets.variable, secrets.resource):
        with pytest.raises(NotThere) as said:
            await look("w", path, ANN)
        assert str(said.value)
        assert not str(said.value).endswith(".")


async def test_what_is_there_is_json() -> None:
    secrets: Secrets = MEMORY
    assert await secrets.variable("w", "u/ann/v", ANN) == msgspec.Raw(b'"text"')
    assert await secrets.resource("w", "u/ann/r", ANN) == msgspec.Raw(b'{"host":"h"}')
