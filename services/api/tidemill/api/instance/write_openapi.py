"""Write services/api/openapi.yaml anew: `python -m tidemill.api.instance.write_openapi`."""

import sys
from pathlib import Path

from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.openapi import Document

COMMITTED = Path(__file__).resolve().parents[3] / "openapi.yaml"


def main() -> None:
    """Write the description of our own routes; extensions describe themselves."""
    COMMITTED.write_bytes(Document(OWN_ROUTES).as_yaml)
    sys.stdout.write(f"{COMMITTED.name} is up to date\n")


if __name__ == "__main__":
    main()
