"""What may be deployed, and where it belongs."""

import msgspec
import pytest

from tidemill.api.http.errors import BadRequest, Unprocessable
from tidemill.api.scripts import paths, rules
from tidemill.api.scripts.rules import NothingNew, Place, Version
from tidemill.api.scripts.schemas import NewScript
from tidemill.api.scripts.signatures.signature import Signature
from tidemill.shared.requirements import NOTHING, Requirements

DOCUMENTED = """
    path parent_hash auto_parent summary description content schema is_template lock language kind tag envs
    concurrent_limit concurrency_time_window_s cache_ttl cache_ignore_s3_path dedicated_worker ws_error_handler_muted
    priority restart_unless_cancelled timeout delete_after_secs deployment_message concurrency_key debounce_key
    debounce_delay_s debounce_args_to_accumulate max_total_debouncing_time max_total_debounces_amount
    visible_to_runner_only auto_kind codebase has_preprocessor on_behalf_of_email on_behalf_of preserve_on_behalf_of
    assets modules labels skip_draft_deletion
"""
"""The fields of a new script that clients know."""


def new(**changes: object) -> NewScript:
    return NewScript(**{"path": "u/ann/s", "content": "x", "language": "python3", **changes})  # type: ignore[arg-type]


def version(name: str, path: str = "u/ann/s", *, is_head: bool = True, may_write: bool = True) -> Version:
    return Version(
        hash=name, path=path, parent_hashes=[], fingerprints=[name.encode()], is_head=is_head, may_write=may_write
    )


HEAD = version("head")


def placed(script: NewScript, head: Version | None = None, named: Version | None = None) -> Place | NothingNew:
    return rules.place(script, (b"sent", b"print"), head, named)


def test_every_documented_field_is_supported_refused_or_tolerated_and_only_one_of_them() -> None:
    supported = {field.name for field in msgspec.structs.fields(NewScript)}
    assert supported | rules.REFUSES.keys() | rules.TOLERATES.keys() >= set(DOCUMENTED.split())
    assert not supported & rules.REFUSES.keys()
    assert not (supported | rules.REFUSES.keys()) & rules.TOLERATES.keys()


@pytest.mark.parametrize("path", ["u/ann/s", "f/team/deep/er/s", "u/a.b/s-1_2.x", "f/x/.hidden"])
def test_good_paths(path: str) -> None:
    assert paths.why_not(path) is None


@pytest.mark.parametrize(
    "path",
    ["", "u/ann", "u/ann/", "/u/ann/s", "g/team/s", "hub/1/a/b", "u//s", "u/ann/../x", "u/ann/..", "u/ann/.", "u/./s",
     "u/ann/a b", "u/ann/é", "u/ann/s\n", "u/ann/a..b", "u/ann/%2e", "u/ann/" + "x" * 255],
)  # fmt: skip
def test_bad_paths(path: str) -> None:
    assert paths.why_not(path) is not None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"path": "s"}, "path"),
        ({"language": "bun"}, "bun"),
        ({"language": "klingon"}, "klingon"),
        ({"kind": "widget"}, "kind"),
        ({"schema": msgspec.Raw(b"[1]")}, "schema"),
        ({"envs": ["NAME"]}, "envs"),
        ({"envs": ["1A=b"]}, "envs"),
        ({"tag": "a b"}, "tag"),
        ({"tag": "flow"}, "tag"),
        ({"content": "x" * (10 * 1024 * 1024 + 1)}, "content"),
        ({"lock": "x" * (10 * 1024 * 1024 + 1)}, "lock"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises((BadRequest, Unprocessable), match=field):
        rules.check(new(**changes))


def test_what_can_be_deployed_passes() -> None:
    rules.check(new(kind="trigger", schema=msgspec.Raw(b'{"a": 1}'), envs=["A=", "B_1=x=y"], tag="gpu-$workspace"))
    rules.check(new(schema=msgspec.Raw(b"null")))


def test_the_first_version_of_a_path_follows_nobody() -> None:
    assert placed(new()) == Place(parent=None)


def test_a_version_follows_the_head_it_names() -> None:
    assert placed(new(parent_hash="head"), HEAD, HEAD) == Place(parent=HEAD)


def test_a_taken_path_needs_a_parent() -> None:
    with pytest.raises(BadRequest, match="head"):
        placed(new(), HEAD)


def test_auto_parent_follows_whatever_the_head_is() -> None:
    assert placed(new(auto_parent=True), HEAD) == Place(parent=HEAD)
    old = version("old", is_head=False)
    assert placed(new(auto_parent=True, parent_hash="old"), HEAD, old) == Place(parent=HEAD)
    assert placed(new(auto_parent=True, parent_hash="gone")) == Place(parent=None)
    assert placed(new(auto_parent=True, parent_hash="old"), None, old) == Place(parent=None)


def test_a_version_may_not_follow_an_old_one() -> None:
    with pytest.raises(BadRequest, match="lineage"):
        placed(new(parent_hash="old"), HEAD, version("old", is_head=False))
    with pytest.raises(BadRequest, match="archived"):
        placed(new(parent_hash="old"), None, version("old", is_head=False))
    with pytest.raises(BadRequest, match="names no version"):
        placed(new(parent_hash="gone"))


def test_a_head_moves_to_a_free_path_only() -> None:
    elsewhere = version("other", "u/ann/before")
    assert placed(new(parent_hash="other"), None, elsewhere) == Place(parent=elsewhere)
    for auto in (True, False):
        with pytest.raises(BadRequest, match="taken"):
            placed(new(parent_hash="other", auto_parent=auto), HEAD, elsewhere)


def test_a_head_that_one_may_not_write_is_not_known() -> None:
    with pytest.raises(BadRequest, match="names no version"):
        placed(new(parent_hash="other"), None, version("other", "u/bob/s", may_write=False))


@pytest.mark.parametrize("print_", [b"sent", b"print"])
def test_what_the_head_says_already_is_nothing_new(print_: bytes) -> None:
    same = Version(
        hash="same", path="u/ann/s", parent_hashes=[], fingerprints=[b"x", print_], is_head=True, may_write=True
    )
    assert placed(new(), same) == NothingNew(head=same)


def test_a_head_whose_lock_was_not_found_is_deployed_again() -> None:
    failed = Version(
        hash="failed",
        path="u/ann/s",
        parent_hashes=[],
        fingerprints=[b"sent"],
        is_head=True,
        may_write=True,
        has_no_lock=True,
    )
    assert placed(new(parent_hash="failed"), failed, failed) == Place(parent=failed)


def test_what_a_version_wants_installed_is_read_unless_its_lock_was_sent() -> None:
    assert rules.requirements_of(new(content="import yaml")) == Requirements(("PyYAML",))
    assert rules.requirements_of(new(content="import yaml", lock="")) == NOTHING
    with pytest.raises(BadRequest, match="no_cache"):
        rules.requirements_of(new(content="# no_cache\nimport yaml"))


def test_python_takes_too_long_to_look_into_long_content() -> None:
    long = "x = 1\n" * (rules.MOST_READ // 6 + 1)
    assert rules.requirements_of(new(content=long)) is None
    assert rules.requirements_of(new(content=long, lock="")) == NOTHING
    assert rules.requirements_of(new(content=long, language="bash")) == NOTHING
    open_ = {"schema": None, "auto_kind": None, "tag": None, "lock": None}
    assert rules.completed(open_, Signature(why="x"), None) == open_


def test_only_what_was_left_open_is_read_off_the_content() -> None:
    open_ = {"schema": None, "auto_kind": None, "tag": None, "lock": None}
    given = {"schema": "{}", "auto_kind": "app", "tag": None, "lock": "a==1"}
    signature, wanted = Signature(schema={"type": "object"}), Requirements(("a",))
    assert rules.completed(open_, signature, wanted) == {**open_, "schema": '{"type":"object"}'}
    assert rules.completed(open_, Signature(is_library=True), wanted) == {**open_, "auto_kind": "lib"}
    for each in (signature, Signature(is_library=True), Signature(why="x")):
        assert rules.completed(given, each, NOTHING) == given
    assert rules.completed(open_, Signature(why="x"), wanted) == open_
    assert rules.completed(open_, Signature(why="x"), NOTHING) == {**open_, "lock": ""}
    assert rules.completed(open_, Signature(why="x"), Requirements(python="3.12")) == {**open_, "lock": "# py: 3.12"}


def test_a_hash_is_sixteen_hex_digits_that_depend_on_content_and_predecessor() -> None:
    one = rules.hash_of(rules.fingerprint({"content": "x", "tag": None}), None)
    assert len(one) == 16
    assert int(one, 16) >= 0
    assert one == rules.hash_of(rules.fingerprint({"tag": None, "content": "x"}), None)
    assert one != rules.hash_of(rules.fingerprint({"content": "y", "tag": None}), None)
    assert one != rules.hash_of(rules.fingerprint({"content": "x", "tag": None}), one)
