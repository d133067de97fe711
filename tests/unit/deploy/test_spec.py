"""What users write of a job: read, and refused with all that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec, make_spec, parse_cores, parse_mb, parse_s


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        (8000, 8000),
        (0.5, 1),
        ("8000", 8000),
        ("8GB", 8192),
        ("8 GiB", 8192),
        ("8g", 8192),
        ("1.5GB", 1536),
        ("500MB", 500),
        ("2048 kB", 2),
        ("1TB", 2**20),
    ],
)
def test_sizes(text: float | str, megabytes: int) -> None:
    assert parse_mb(text) == megabytes


@pytest.mark.parametrize("text", ["", "GB", "8 XB", "-1GB", "8GBs", "0", 0, -5, float("nan"), float("inf")])
def test_what_is_no_size(text: float | str) -> None:
    with pytest.raises(DeployError, match="is no size"):
        parse_mb(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (7200, 7200),
        ("7200", 7200),
        ("90s", 90),
        ("90m", 5400),
        ("90 min", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("01:30:00", 5400),
        ("1-12:00:00", 129600),
    ],
)
def test_times(text: float | str, seconds: float) -> None:
    assert parse_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2:30", "1h30", "-5", 0, float("inf")])
def test_what_is_no_time(text: float | str) -> None:
    with pytest.raises(DeployError, match="is no time"):
        parse_s(text)


@pytest.mark.parametrize("text", [0, -1, "many", float("nan")])
def test_what_is_no_number_of_cores(text: float | str) -> None:
    with pytest.raises(DeployError, match="is no number of cores"):
        parse_cores(text)


def test_a_spec_of_what_a_user_writes() -> None:
    spec = make_spec(
        cores=4,
        memory="8GB",
        disk="20GB",
        gpus=1,
        wall_time="2h",
        idle="15m",
        prologue="module load gcc\n\nulimit -c 0\n",
        variables={"ANALYSIS": "top"},
        directives=["+JobFlavour = 'x'"],
    )
    assert spec == WorkerSpec(
        cores=4.0,
        memory_mb=8192,
        disk_mb=20480,
        gpus=1,
        wall_time_s=7200,
        idle_s=900.0,
        prologue=("module load gcc", "ulimit -c 0"),
        environment={"ANALYSIS": "top"},
        directives=("+JobFlavour = 'x'",),
    )


def test_what_is_not_asked_for_is_left_to_the_worker() -> None:
    spec = make_spec()
    assert (spec.memory_mb, spec.disk_mb, spec.wall_time_s, spec.idle_s) == (None, None, None, None)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(DeployError) as raised:
        make_spec(
            cores=0,
            memory="lots",
            wall_time=2,
            gpus=-1,
            variables={"A B": "c"},
            features=["no space"],
            account="x\nqueue 1000",
            environment="env.tar.gz",
            python="/usr/bin/python3",
            name="a b",
        )
    said = str(raised.value)
    for word in [
        "cores:",
        "memory: 'lots'",
        "wall_time",
        "gpus",
        "'A B'",
        "'no space'",
        "account",
        "not both",
        "'a b'",
    ]:
        assert word in said


@pytest.mark.parametrize(
    "said", [{"account": "\udce4"}, {"prologue": "echo \udce4"}, {"variables": {"NAME": "\udce4"}}]
)
def test_bytes_that_are_no_text_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(DeployError, match=r"(account|prologue|variable NAME) holds bytes that are no text"):
        make_spec(**said)
