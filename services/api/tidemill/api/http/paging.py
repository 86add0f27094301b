"""Lists by page: `page` counts from 1, and 0 means the first page too, because the CLI starts there."""

from typing import Annotated

import msgspec

MOST = 1000
PageNumber = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000, description="from 1; 0 is the first page too")]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=MOST, description="how many at the most")]


class Paged(msgspec.Struct, frozen=True, kw_only=True):
    """The two parameters of every list."""

    page: PageNumber = 1
    per_page: PageSize = 30

    @property
    def offset(self) -> int:
        """How many rows come before this page."""
        return max(self.page - 1, 0) * self.per_page
