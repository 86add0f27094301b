"""Tiny packages, made by the test itself: a folder of wheels is all the index that uv needs."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_OF_THE_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED")


def a_wheel(
    folder: Path, name: str, version: str = "1.0", *, code: str | None = None, needs: Sequence[str] = ()
) -> Path:
    """Write a wheel of one module, which by default knows its version, and return its file."""
    info = f"{name}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {each}" for each in needs),
    ]
    files: Mapping[str, str] = {
        f"{name}/__init__.py": code if code is not None else f"__version__ = {version!r}\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(text.encode())},{len(text.encode())}" for path, text in files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return wheel


def a_source(folder: Path, name: str, version: str = "1.0") -> Path:
    """Write a package that comes as source alone and that would leave a trace if anything of it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in {
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "setup.py": f"open({str(folder / 'it-ran')!r}, 'w').close()\n",
        }.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file


def wheels_of(folder: Path, name: str) -> None:
    """Write an installed package of pure Python as a wheel, as it is, and those that it needs."""
    distribution = metadata.distribution(name)
    wheel = folder / f"{canonicalize_name(name).replace('-', '_')}-{distribution.version}-py3-none-any.whl"
    if wheel.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        str(each): Path(str(each.locate())).read_bytes()
        for each in distribution.files or ()
        if not str(each).startswith("..") and each.suffix != ".pyc" and each.name not in _OF_THE_INSTALLER
    }
    info = next(each.split("/")[0] for each in files if each.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        record = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    for line in distribution.requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            wheels_of(folder, needed.name)


def only_from(folder: Path) -> dict[str, str]:
    """Return the variables of pip that let it look into this folder and nowhere else."""
    return {"PIP_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
