"""Which jobs may have one process, one after the other. Pure.

A deployed version asks for it by `dedicated_worker` or by the line `# warm` among its first comments. Its jobs share a
process when they are equal in all that decides what they may see and do; the zygote and the limits are the sandbox's to
compare.
"""

import hashlib

import msgspec

from tidemill.shared.annotations import annotations
from tidemill.worker.store.queue import Claim

ANNOTATION = "warm"


def is_annotated(code: str) -> bool:
    """Tell whether a script asks for a warm process by a line of its own."""
    return ANNOTATION in annotations(code)


def key(claim: Claim) -> str:
    """Return what is equal for those jobs of a version that may have the same process."""
    permissions = msgspec.json.decode(claim.permissions, type=dict[str, msgspec.Raw])
    permissions.pop("token_ends", None)  # how long, not what: each job's own token sees to that
    same = (claim.workspace_id, claim.hash, claim.permissioned_as, claim.email, permissions, claim.envs)
    return hashlib.sha256(msgspec.json.encode(same)).hexdigest()
