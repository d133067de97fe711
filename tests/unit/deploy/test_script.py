"""The job's script as text: what of a spec is in it, and that no secret is."""

from __future__ import annotations

import msgspec
import pytest

from graphvine.deploy.errors import DeployError
from graphvine.deploy.script import Surroundings, render_script, worker_options
from graphvine.deploy.spec import WorkerSpec, make_spec

AROUND = Surroundings(
    connection_file='"$HERE/manager.json"', scratch='"$SCRATCH"', archive='"$HERE/env.tar.gz"'
)


def test_what_the_worker_is_told() -> None:
    spec = make_spec(
        cores=2.5, idle="15m", grace=30, features=["cvmfs", "big"], worker_options=["--name", "a b"]
    )
    assert worker_options(spec) == [
        *("--cores", "2.5", "--timeout", "900", "--grace", "30"),
        *("--feature", "cvmfs", "--feature", "big", "--name", "a b"),
    ]
    assert "--name 'a b'" in render_script(make_spec(python="/p", worker_options=["--name", "a b"]), AROUND)


def test_what_is_not_said_is_not_passed_on() -> None:
    assert worker_options(WorkerSpec()) == ["--cores", "1"]
    head = render_script(WorkerSpec(python="/p"), AROUND).split("\n\n")[0].splitlines()
    for line in ("gv_memory_mb=", "gv_disk_mb=", "gv_wall_time_s=", "gv_image=", "gv_proxy=", "gv_archive="):
        assert line in head


def test_users_words_are_quoted() -> None:
    spec = make_spec(
        python="/shared/my env/bin/python",
        container="docker://image with spaces",
        variables={"B": "it's $HOME", "A": "1\n2"},
        prologue="echo 'as it is' $HOME",
    )
    script = render_script(spec, AROUND)
    assert "gv_python='/shared/my env/bin/python'" in script
    assert "gv_image='docker://image with spaces'" in script
    assert "export A='1\n2'\nexport B='it'\"'\"'s $HOME'\n" in script
    assert "\necho 'as it is' $HOME\n" in script


def test_an_image_that_the_batch_system_runs_is_none_of_the_scripts_business() -> None:
    around = Surroundings(connection_file="c", runs_container=True)
    assert "\ngv_image=\n" in render_script(make_spec(python="/p", container="img.sif"), around)


def test_a_job_without_any_python_is_refused() -> None:
    with pytest.raises(DeployError, match="needs an environment to bring, or python="):
        render_script(make_spec(), AROUND)


def test_what_nodes_keep_is_named_by_content_and_only_where_they_may() -> None:
    spec = msgspec.structs.replace(
        make_spec(environment="env.tar.gz", variables={"GRAPHVINE_CACHE_MB": "500"}), archive_name="env-12"
    )
    head = render_script(spec, AROUND).split("\n\n")[0].splitlines()
    assert {"gv_name=env-12", "gv_keeps=1", "export GRAPHVINE_CACHE_MB=500"} <= set(head)
    spec = msgspec.structs.replace(spec, node_cache=False)
    head = render_script(spec, AROUND).split("\n\n")[0].splitlines()
    assert {"gv_name=", "gv_keeps="} <= set(head)
