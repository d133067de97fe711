"""What a factory is told, in TaskVine's words and ours."""

from __future__ import annotations

import pytest

from graphvine.deploy.errors import DeployError
from graphvine.deploy.factory_options import make_options, parse_config
from graphvine.deploy.fleet import Limits
from graphvine.deploy.scaling import Policy


def test_what_is_not_said_has_a_sensible_value():
    options = make_options({"manager_name": "barney", "cores": None})
    assert options.policy() == Policy(minimum=0, maximum=100)
    assert options.spec().cores == 1.0
    assert options.limits(Limits()) == Limits()


def test_taskvines_configuration_file():
    said = parse_config(
        """{"manager-name": "my_manager.*", "max-workers": 100, "min-workers": 2, "workers-per-cycle": 5,
        "task-per-worker": 3, "timeout": 900, "worker-extra-options": "--feature fast --name 'a b'",
        "condor-requirements": ["HasRoot", "OpSysMajorVer > 8"], "cores": 4, "memory": 8000, "disk": 20000,
        "foremen-name": "none"}""",
        "my_conf",
    )
    options = make_options(said)
    spec = options.spec()
    assert (options.policy().minimum, options.policy().maximum) == (2, 100)
    assert (options.tasks_per_worker, options.limits(Limits()).per_cycle) == (3, 5)
    assert (spec.cores, spec.memory_mb, spec.disk_mb, spec.idle_s) == (4.0, 8000, 20000, 900.0)
    assert spec.requirements == "(HasRoot) && (OpSysMajorVer > 8)"
    assert spec.worker_options == ("--feature", "fast", "--name", "a b")
    assert options.matches("my_manager-7")
    assert not options.matches("not_my_manager")


def test_units_and_numbers_from_a_command_line():
    said = {"manager_name": "m", "cores": "2", "memory": "8GB", "wall_time": "2h", "max_workers": "7"}
    options = make_options(said)
    spec = options.spec()
    assert (spec.cores, spec.memory_mb, spec.wall_time_s, options.max_workers) == (2.0, 8192, 7200, 7)


def test_a_name_with_signs_is_itself_too():
    assert make_options({"manager_name": "a.b(c)"}).matches("a.b(c)")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "--manager NAME"),
        ({"manager_name": "m", "min_workers": 5, "max_workers": 2}, "5 to 2 workers make no sense"),
        ({"manager_name": "m", "cores": "many"}, "'many' is no number of cores"),
        ({"manager_name": "m", "memory": "much"}, "memory: 'much' is no size"),
        ({"manager_name": "m", "max_worker": 2}, "max_worker"),
        ({"manager_name": "m["}, "no regular expression"),
        ({"manager_name": "m", "workers_per_cycle": -3}, "workers_per_cycle: -3 is no count"),
        ({"manager_name": "m", "tasks_per_worker": -1}, "tasks_per_worker: -1 is no count"),
        ({"manager_name": "m", "worker_options": "--name 'a"}, "worker-options.*No closing quotation"),
        ({"manager_name": "m", "target_duration": "soon"}, "'soon' is no time"),
        ({"manager_name": "m", "factory_timeout": "soon"}, "'soon' is no time"),
    ],
)
def test_what_makes_no_sense_is_said(said, why):
    with pytest.raises(DeployError, match=why.replace("(", r"\(")):
        make_options(said)


@pytest.mark.parametrize(
    ("text", "why"), [("{", "is no JSON"), ("[" * 100_000, "is no JSON"), ("[1]", "holds no JSON object")]
)
def test_a_file_that_is_no_configuration_is_named(text, why):
    with pytest.raises(DeployError, match=f"my_conf {why}"):
        parse_config(text, "my_conf")
