"""What a cluster is told wrongly, before there is any batch system to ask."""

from __future__ import annotations

import pytest

from graphvine.deploy.cluster import HTCondorCluster, LocalCluster, SlurmCluster, TemplateCluster
from graphvine.deploy.errors import DeployError


@pytest.mark.parametrize(
    "make", [LocalCluster, HTCondorCluster, SlurmCluster, lambda **o: TemplateCluster("pbs", **o)]
)
def test_an_unknown_option_is_answered_with_the_nearest_and_all(make):
    with pytest.raises(
        TypeError, match=r"Cluster has no option coers; did you mean cores\? There are: account, "
    ):
        make(coers=3)


def test_each_cluster_names_its_own_options_and_no_connection_file():
    with pytest.raises(
        TypeError, match=r"HTCondorCluster has no option partition\. There are: .*, pool, .*, schedd, "
    ) as e:
        HTCondorCluster(partition="long")
    assert "connection_file" not in str(e.value)
    with pytest.raises(TypeError, match="no option connection_file"):
        SlurmCluster(connection_file="x.json")


def test_sizes_and_times_are_quoted_as_they_were_written():
    with pytest.raises(
        DeployError, match=r"memory: '5XB' is no size: .*; wall_time: '2x' is no time: write 7200"
    ):
        SlurmCluster(memory="5XB", wall_time="2x")


@pytest.mark.parametrize("wrong", [-1, "3", 2.5, None])
def test_so_many_workers_is_a_whole_number(wrong):
    cluster = LocalCluster()
    with pytest.raises(ValueError, match=r"scale\(.*\): give a whole number from 0 upward"):
        cluster.scale(wrong)
    for bounds in ((wrong, 5), (0, wrong), (3, 1), (0, 0)):
        with pytest.raises(ValueError, match=r"adapt\(.*\): give two whole numbers from 0 upward"):
            cluster.adapt(*bounds)


def test_what_is_said_twice_or_not_at_all():
    with pytest.raises(DeployError, match="partition and queue are two words for the same"):
        SlurmCluster(partition="long", queue="short")
    SlurmCluster(partition="long", queue="long")
    with pytest.raises(DeployError, match="variable A is None"):
        SlurmCluster(variables={"A": None, "B": 1})
