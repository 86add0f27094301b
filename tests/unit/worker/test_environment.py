"""The environment of a job."""

import uuid

import msgspec

from tests.unit.worker.test_held import a_claim
from tidemill.worker.environment import variables
from tidemill.worker.settings import WorkerSettings

SETTINGS = WorkerSettings(api_url="http://api:8000", base_url="https://tidemill.example.com")


def test_the_names_that_the_sdks_read_are_there() -> None:
    claim = a_claim(uuid.uuid4())
    env = variables(claim, SETTINGS, "default")
    assert env["BASE_INTERNAL_URL"] == "http://api:8000"
    assert env["WM_BASE_URL"] == "https://tidemill.example.com"
    assert env["WM_JOB_ID"] == str(claim.id)
    assert env["WM_JOB_PATH"] == "u/ann/x"
    assert env["WM_STATE_PATH_NEW"] == "u/ann/u_ann_x"


def test_what_has_no_value_is_left_out() -> None:
    env = variables(msgspec.structs.replace(a_claim(uuid.uuid4()), path=None, hash=None), SETTINGS, "default")
    of_flows = {"WM_ROOT_FLOW_JOB_ID", "WM_FLOW_JOB_ID", "WM_FLOW_STEP_ID", "WM_FLOW_PATH"}
    assert ({"WM_JOB_PATH", "WM_RUNNABLE_ID", "TRACEPARENT"} | of_flows).isdisjoint(env)


def test_a_job_below_a_script_is_in_no_flow() -> None:
    above = uuid.uuid4()
    claim = msgspec.structs.replace(a_claim(uuid.uuid4()), parent_job=above, root_job=above)
    env = variables(claim, SETTINGS, "default")
    assert env["WM_ROOT_JOB_ID"] == str(above)
    assert not [name for name in env if "FLOW" in name]


def test_a_script_can_not_replace_the_names_that_belong_to_the_job() -> None:
    claim = msgspec.structs.replace(a_claim(uuid.uuid4()), envs=["WM_TOKEN=stolen", "OWN=a=b", "broken"])
    env = variables(claim, SETTINGS, "default")
    assert env["WM_TOKEN"] == "tmj_1_x"
    assert env["OWN"] == "a=b"
    assert "broken" not in env
