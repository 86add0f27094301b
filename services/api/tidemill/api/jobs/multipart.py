"""The parts of a multipart/form-data body (RFC 7578) that are text. Pure.

Strict on purpose: what one reader takes for a file and another for a field is a way past both. A part is text when it
has no file name and is declared as text or as nothing.
"""

import re
from collections.abc import Mapping

from tidemill.api.http.errors import BadRequest

_MOST_PARTS = 1000
_LONGEST_HEAD = 2000
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))\s*(?=;|$)', re.IGNORECASE)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_SET = r"""\s*;\s*([!#$&+.^_`|~0-9A-Za-z*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))"""
_PARAMETER = re.compile(_SET)
_DISPOSITION = re.compile(rf"form-data((?:{_SET})*)\s*;?", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")
_AS_IT_IS = ("", "7bit", "8bit", "binary")


def fields(content_type: str, body: bytes) -> Mapping[str, str]:
    """Return the text parts by name, the last one where a name comes twice.

    Raises BadRequest for what is no form, and naming the part for a file: this workspace has no storage to keep it in.
    """
    found: dict[str, str] = {}
    for head, content in _parts(_boundary(content_type), body):
        headers = _headers(head)
        parameters = _parameters(headers.get("content-disposition", ""))
        name = parameters.get("name")
        if not name:
            raise BadRequest("A part of the body has no name.")
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if {"filename", "filename*"} & parameters.keys() or not (media == "" or media.startswith("text/")):
            raise BadRequest(f"The part {name[:100]} is a file, and this workspace has no storage to keep it in.")
        if headers.get("content-transfer-encoding", "").lower() not in _AS_IT_IS:
            raise BadRequest(f"The part {name[:100]} is encoded; send it as it is.")
        try:
            found[name] = content.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"The part {name[:100]} is not text in utf-8.") from None
    return found


def _boundary(content_type: str) -> bytes:
    found = _BOUNDARY.findall(content_type)
    if len(found) != 1 or content_type.lower().count("boundary=") != 1:
        raise BadRequest("The body is multipart/form-data without one boundary.")
    try:
        return ("".join(found[0])).encode("ascii")
    except UnicodeEncodeError:
        raise BadRequest("The body is multipart/form-data without one boundary.") from None


def _parts(boundary: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    before, *sections = (b"\r\n" + body).split(b"\r\n--" + boundary, _MOST_PARTS + 2)
    if len(sections) > _MOST_PARTS + 1:
        raise BadRequest(f"The body has more than {_MOST_PARTS} parts.")
    if before.strip() or not sections or not sections[-1].startswith(b"--") or sections[-1][2:].strip():
        raise BadRequest("The body is not multipart/form-data from its first boundary to its last.")
    parts = []
    for section in sections[:-1]:
        # An empty head still has the empty line behind it.
        head, blank, content = section.partition(b"\r\n\r\n")
        if not blank or not head.startswith(b"\r\n") or len(head) > _LONGEST_HEAD:
            raise BadRequest("A part of the body has no head, or one that is too long.")
        parts.append((head.removeprefix(b"\r\n"), content))
    return parts


def _headers(head: bytes) -> Mapping[str, str]:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise BadRequest("The head of a part of the body is not text in utf-8.") from None
    headers: dict[str, str] = {}
    for line in lines:
        parsed = _HEADER.fullmatch(line)
        if parsed is None or parsed[1].lower() in headers:
            raise BadRequest("The head of a part of the body is not understood.")
        headers[parsed[1].lower()] = parsed[2]
    return headers


def _parameters(disposition: str) -> Mapping[str, str]:
    parsed = _DISPOSITION.fullmatch(disposition)
    if parsed is None:
        raise BadRequest("A part of the body is not declared as form-data.")
    parameters: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(parsed[1]):
        if name.lower() in parameters:
            raise BadRequest("A part of the body has two names.")
        parameters[name.lower()] = bare or _ESCAPED.sub(r"\1", quoted)
    return parameters
