"""Write the locks of the peers anew from what they want: `make bench-lock`."""

import subprocess
import sys
from pathlib import Path

from tests.bench.peers import PEERS
from tests.bench.peers.drive import HERE, uv_environment

OPTIONS = (
    "--quiet",
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
)


def main() -> None:
    """Lock every peer; end with the first that can't be resolved."""
    uv = Path(sys.executable).with_name("uv")
    for name in PEERS:
        command: list[str | Path] = [uv, "pip", "compile", *OPTIONS, f"{name}.in", "-o", f"{name}.txt"]
        if subprocess.run(command, cwd=HERE, env=uv_environment(), timeout=600, check=False).returncode != 0:
            sys.exit(f"{name} could not be locked")


if __name__ == "__main__":
    main()
