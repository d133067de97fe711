"""The jobs of a cluster: how many are submitted, which are let go, and what is said of those that fail."""

from __future__ import annotations

import random

import pytest
from tests.unit.deploy.make_believe import BatchJob, MakeBelieve

from graphvine.deploy.batch import JobState
from graphvine.deploy.fleet import Limits
from graphvine.protocol.messages import WorkerNews


@pytest.fixture
def site() -> MakeBelieve:
    return MakeBelieve()


# -- up and down ----------------------------------------------------------------------------------------


def test_missing_workers_are_one_submission(site: MakeBelieve):
    site.want(8)
    assert site.submissions == [(0.0, 8)]
    site.want(10)
    assert site.submissions == [(0.0, 8), (0.0, 2)]
    site.turn()
    assert len(site.jobs) == 10


def test_very_many_are_several(site: MakeBelieve):
    site.want(2500)
    assert [count for _, count in site.submissions] == [1000, 1000, 500]


def test_where_a_user_may_have_only_so_many_jobs_those_are_had(site: MakeBelieve):
    site.room = 100
    site.want(500)
    site.wait(60.0)
    assert [count for _, count in site.submissions][:4] == [500, 250, 125, 62]
    for name in list(site.jobs):
        site.connect(name)
    site.wait(3600.0)
    assert len(site.alive) == 100
    text = "workers can't be submitted: the queue is closed"
    assert site.texts("error").count(text) <= 7, "once in ten minutes"
    assert len(site.submissions) < 40
    assert site.fleet.lack() is not None
    site.room = 1000
    site.fleet.on_wish()
    site.want(500)
    assert site.submissions[-1][1] == 400, "said again, all are tried at once"


def test_no_more_in_a_cycle_than_agreed():
    site = MakeBelieve(Limits(per_cycle=5, cycle_s=30.0))
    site.want(12)
    site.wait(100.0)
    assert site.submissions == [(0.0, 5), (30.0, 5), (60.0, 2)]


def test_what_has_not_started_goes_first(site: MakeBelieve):
    site.want(4)
    site.connect("0.0")
    site.start("1.0")
    site.wait(6.0)
    site.want(2)
    assert site.in_state(JobState.REMOVED) == ["2.0", "3.0"]
    assert site.retired == []
    site.want(1)
    assert "1.0" in site.in_state(JobState.REMOVED)
    site.want(0)
    assert site.retired == ["0.0"]


def test_the_longest_idle_is_let_go_and_the_busy_never(site: MakeBelieve):
    site.want(4)
    for name in list(site.jobs):
        site.connect(name, busy=True)
    site.now = 100.0
    site.rest("2.0")
    site.now = 200.0
    site.rest("1.0")
    site.want(3)
    assert site.retired == ["2.0"]
    site.want(0)
    assert site.retired == ["2.0", "1.0"]
    assert site.in_state(JobState.REMOVED) == []


def test_a_worker_that_could_not_leave_is_ours_again(site: MakeBelieve):
    site.want(1)
    site.connect("0.0")
    site.want(0)
    assert site.retired == ["0.0"]
    site.want(1)
    assert len(site.jobs) == 1, "never more jobs than may be"
    site.wait(61.0)
    assert site.fleet.have == 1
    assert len(site.jobs) == 1


def test_there_are_never_more_jobs_than_may_be(site: MakeBelieve):
    site.slow_to_cancel = True
    site.want(5)
    site.want(2)
    site.want(5)
    assert len(site.alive) == 5
    site.want(5, most=8)
    assert len(site.alive) == 8
    for name in list(site.jobs)[-3:]:
        assert not site.jobs[name].cancelled


@pytest.mark.parametrize("put_back", [False, True])
def test_a_job_that_is_held_or_put_back_as_its_worker_leaves_is_taken_out(site: MakeBelieve, put_back: bool):
    site.want(2)
    site.connect("0.0")
    site.connect("1.0", busy=True)
    site.want(1, most=2)
    assert site.retired == ["0.0"]
    site.evict("0.0") if put_back else site.hold("0.0", "its output can't be sent back")
    site.wait(100.0)
    assert site.in_state(JobState.REMOVED) == ["0.0"]
    assert site.texts("warning") == []


def test_jobs_that_nobody_can_get_rid_of_do_not_keep_others_out_for_ever(site: MakeBelieve):
    site.want(4)
    for name in list(site.jobs):
        site.connect(name, busy=True)
    site.slow_to_cancel = True
    for name in ("0.0", "1.0"):
        site.disconnect(name)
    site.wait(60.0)
    assert len(site.jobs) == 4, "so soon they may be about to end"
    site.wait(240.0)
    assert len(site.alive) == 6
    assert [text for text in site.texts("warning") if "still there" in text] == [
        "job 0.0 was cancelled 4 times and is still there; another one may take its place"
    ]
    for name in ("4.0", "5.0"):
        site.connect(name)
        site.disconnect(name)
    site.wait(1000.0)
    assert len(site.alive) == 8
    for name in list(site.alive):
        site.disconnect(name)
    site.wait(5000.0)
    assert len(site.alive) == 8, "twice as many as may be, and no more"


def test_what_was_not_cancelled_is_cancelled_again(site: MakeBelieve):
    site.deaf = True
    site.want(3)
    site.want(0)
    assert "jobs can't be cancelled: no answer" in site.texts("warning")
    assert len(site.alive) == 3
    site.deaf = False
    site.wait(31.0)
    assert site.alive == {}


def test_closing_leaves_nothing(site: MakeBelieve):
    site.want(3)
    site.connect("0.0", busy=True)
    site.fleet.on_close(site.now)
    site.turn()
    assert site.alive == {}
    site.settle()
    assert site.fleet.jobs == {}
    assert site.said == [], "what was cancelled is no news"


def test_what_was_being_submitted_while_it_closed_is_cancelled(site: MakeBelieve):
    site.fleet.on_target(2, 2, 0.0)
    (submit,) = site.fleet.turn(0.0)
    site.fleet.on_close(0.0)
    site._do(submit)
    site.turn()
    assert len(site.jobs) == 2
    assert site.alive == {}


def test_a_worker_may_join_before_its_job_is_known(site: MakeBelieve):
    site.fleet.on_target(1, 1, 0.0)
    (submit,) = site.fleet.turn(0.0)
    site.fleet.on_workers([WorkerNews(1, "0.0", "w", "node", 1.0, 0.0)], 0.0)
    site.fleet.on_submitted(["0.0"], 0.0)
    assert submit.count == 1
    assert [job.state for job in site.fleet.describe(0.0)] == ["connected"]


# -- workers that leave by themselves -------------------------------------------------------------------


def idlers(count: int) -> MakeBelieve:
    """Workers that leave after ten seconds without work, as they just did."""
    site = MakeBelieve(idle_s=10.0)
    site.want(count)
    for name in list(site.jobs):
        site.connect(name)
    site.now = 10.0
    for name in list(site.jobs):
        site.end(name)
    site.want(count)
    site.wait(3000.0)
    return site


def test_who_left_as_there_was_nothing_to_do_is_missed_when_there_is():
    site = idlers(3)
    assert [count for _, count in site.submissions] == [3]
    assert site.said == [], "that is no failure"
    assert site.fleet.jobs == {}
    site.want(3, busy=2)
    assert [count for _, count in site.submissions] == [3, 2]
    site.want(3, busy=2)
    assert [count for _, count in site.submissions] == [3, 2]
    site.want(3, busy=7)
    assert [count for _, count in site.submissions] == [3, 2, 1]


def test_the_batch_system_may_be_the_first_to_tell_of_it():
    site = MakeBelieve(idle_s=10.0)
    site.want(1)
    site.connect("0.0")
    site.now = 10.0
    site.jobs["0.0"].state = JobState.FINISHED
    site.wait(300.0)
    site.disconnect("0.0")
    site.want(1)
    assert [count for _, count in site.submissions] == [1]
    assert site.said == []


def test_who_left_as_there_was_nothing_to_do_is_no_reason_to_send_others_away():
    site = idlers(3)
    site.want(3, busy=1)
    (name,) = site.alive
    site.connect(name)
    site.want(2, most=3)
    site.want(1, most=3)
    assert (site.retired, list(site.alive)) == ([], [name])
    site.want(3)
    assert [count for _, count in site.submissions] == [3, 1, 2], "those are wanted anew"


def test_who_is_wanted_anew_comes_though_there_is_nothing_to_do():
    site = idlers(2)
    site.fleet.on_wish()
    site.want(2)
    assert [count for _, count in site.submissions] == [2, 2]


def test_a_worker_that_is_lost_while_it_is_idle_is_missed_at_once():
    site = MakeBelieve(idle_s=100.0)
    site.want(1)
    site.connect("0.0")
    site.now = 40.0
    site.end("0.0", code=-9)
    site.want(1)
    site.wait(60.0)
    assert [count for _, count in site.submissions] == [1, 1]


# -- jobs that come to nothing --------------------------------------------------------------------------


def test_an_evicted_job_comes_back_as_itself(site: MakeBelieve):
    site.want(1)
    site.connect("0.0", busy=True)
    site.wait(100.0)
    (info,) = site.fleet.describe(site.now)
    assert (info.host, info.worker) == ("node-0.0", "worker-0.0")
    site.evict("0.0")
    site.wait(100.0)
    (info,) = site.fleet.describe(site.now)
    assert (info.state, info.host, info.worker) == ("pending", "", "")
    site.connect("0.0")
    assert [job.state for job in site.fleet.describe(site.now)] == ["connected"]
    assert len(site.jobs) == 1
    assert site.texts("warning") == []


def test_a_worker_that_worked_and_is_gone_is_replaced_at_once(site: MakeBelieve):
    site.want(2)
    site.connect("0.0")
    site.connect("1.0")
    site.wait(100.0)
    site.end("0.0", state=JobState.GONE)
    site.wait(5.0)
    assert [count for _, count in site.submissions] == [2, 1]
    assert site.texts("warning") == []


def test_why_workers_are_missing_is_known_until_some_join(site: MakeBelieve):
    site.refuses = True
    site.want(2)
    lack = ("workers can't be submitted: the queue is closed", 5.0)
    assert site.fleet.lack() == lack
    site.refuses = False
    site.wait(5.0)
    assert site.fleet.lack() is None
    site.end("0.0", code=1)
    site.wait(60.0)
    lack = ("job 0.0 has ended with exit code 1, without having joined the manager", float("inf"))
    assert site.fleet.lack() == lack, "until it is known how the other one goes"
    site.connect("1.0")
    assert site.fleet.lack() is None


def test_a_held_job_is_removed_and_replaced_and_its_reason_said_once(site: MakeBelieve):
    site.want(5)
    for name in list(site.jobs):
        site.hold(name, f"job {name}: transfer failed")
    site.wait(30.0)
    held = [text for text in site.texts("warning") if "is held" in text]
    assert held == ["job 0.0 is held: job 0.0: transfer failed; it is removed"]
    assert [count for _, count in site.submissions] == [5, 1]
    site.connect("5.0")
    site.turn()
    assert [count for _, count in site.submissions] == [5, 1, 4]


def test_jobs_that_end_without_having_joined_are_explained(site: MakeBelieve):
    site.want(3)
    for name in list(site.jobs):
        site.end(name, code=73)
    site.wait(6.0)
    (said,) = site.texts("warning")
    assert said == (
        "job 0.0 has ended with exit code 73, without having joined the manager; "
        "its output ends with:\noutput of 0.0"
    )


def test_a_job_that_runs_and_does_not_join_is_explained(site: MakeBelieve):
    site.want(2)
    site.start("0.0")
    site.start("1.0")
    site.wait(200.0)
    (said,) = site.texts("warning")
    assert "has not joined; its output ends with:\noutput of" in said
    reason = "it should have joined by now: the log has the end of its output"
    assert [job.reason for job in site.fleet.describe(site.now)] == [reason, reason]
    site.connect("0.0")
    assert [job.reason for job in site.fleet.describe(site.now)] == ["", reason]


def test_a_job_whose_worker_is_gone_is_removed(site: MakeBelieve):
    site.want(1)
    site.connect("0.0")
    site.wait(100.0)
    site.disconnect("0.0")
    site.wait(100.0)
    assert site.jobs["0.0"].cancelled
    assert len(site.alive) == 1, "and replaced"


def test_nothing_that_starts_is_said_with_the_reason(site: MakeBelieve):
    site.want(3)
    for name in list(site.jobs):
        site.jobs[name].reason = "Priority"
    site.wait(200.0)
    (said,) = site.texts("warning")
    assert said.startswith("no worker has started for ")
    assert said.endswith("3 jobs are pending (Priority)")
    site.wait(1000.0)
    assert len(site.texts("warning")) <= 4, "said again, less and less often"


def test_a_batch_system_that_refuses_is_asked_less_and_less(site: MakeBelieve):
    site.refuses = True
    site.want(10)
    site.wait(3600.0)
    assert 5 <= len(site.submissions) <= 20
    assert site.texts("error")[0] == "workers can't be submitted: the queue is closed"
    assert len(site.texts("error")) <= 1 + 3600 / 600
    site.refuses = False
    site.wait(301.0)
    assert len(site.alive) == 10, "all at once, when it is willing again"


def test_the_user_may_try_again_at_once(site: MakeBelieve):
    site.refuses = True
    site.want(10)
    site.refuses = False
    site.fleet.on_wish()
    site.want(10)
    assert len(site.alive) == 10


@pytest.mark.parametrize("count", [1, 10, 100])
def test_a_black_hole_costs_a_bounded_number_of_jobs(site: MakeBelieve, count: int):
    site.want(count)
    for _ in range(3600):
        for name in list(site.alive):
            site.end(name, code=1)
        site.wait(1.0)
    assert len(site.jobs) <= count + 20


def test_one_bad_node_among_good_ones_does_not_eat_jobs_for_ever(site: MakeBelieve):
    """Every other job lands on it, as it is always free."""
    site.want(10)
    for second in range(3600):
        for number, name in enumerate(list(site.alive)):
            if site.jobs[name].state is JobState.PENDING:
                if number + second & 1:
                    site.connect(name, busy=True)
                else:
                    site.end(name, code=1)
        site.wait(1.0)
    assert len(site.in_state(JobState.RUNNING)) == 10
    assert len(site.jobs) <= 200


def test_workers_that_join_and_die_at_once_are_a_black_hole_too(site: MakeBelieve):
    site.want(5)
    for _ in range(3600):
        for name in list(site.alive):
            site.connect(name)
            site.end(name, code=1)
        site.wait(1.0)
    assert len(site.jobs) <= 10 * (1 + 3600 / 600) + 5
    assert any("soon after it had joined" in text for text in site.texts("warning"))
    given_up = [text for text in site.texts("error") if "or when workers are asked for anew" in text]
    assert 1 <= len(given_up) <= 3600 / 600 + 1


# -- asking ---------------------------------------------------------------------------------------------


def test_the_batch_system_is_asked_seldom_when_all_are_there(site: MakeBelieve):
    site.want(3)
    for name in list(site.jobs):
        site.connect(name)
    site.asked = 0
    site.wait(3600.0)
    assert 1 <= site.asked <= 13


def test_and_not_much_more_often_while_jobs_wait(site: MakeBelieve):
    site.want(3)
    site.wait(3600.0)
    assert 60 <= site.asked <= 80


def test_nobody_is_asked_about_nothing(site: MakeBelieve):
    site.settle()
    assert site.asked == 0
    assert site.fleet.deadline() is None


# -- anything -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_nothing_is_lost_track_of(seed: int):
    """Random events; then the site behaves, and everybody gets what they wanted."""
    chance = random.Random(seed)
    site = MakeBelieve(Limits(per_submission=chance.choice([3, 1000])))
    most = chance.randint(1, 12)
    for _ in range(300):
        happen(site, chance, most)
        site.turn()
        assert sum(not job.cancelled for job in site.alive.values()) <= most
        assert len(site.alive) <= 2 * most
        site.wait(chance.choice([0.0, 0.1, 3.0, 40.0]))
    site.refuses = site.deaf = site.slow_to_cancel = False
    wanted = chance.randint(0, most)
    for _ in range(200):
        site.want(wanted, most)
        for name, job in list(site.alive.items()):
            if job.cancelled:
                site.end(name, state=JobState.REMOVED)
            elif job.state is JobState.HELD:
                continue
            elif name in site.retired and not job.busy:
                site.end(name)
            else:
                site.connect(name)
        site.wait(100.0)
    staying = [name for name, job in site.alive.items() if job.worker]
    assert len(staying) == wanted
    assert set(site.fleet.jobs) == set(site.alive)
    site.fleet.on_close(site.now)
    site.turn()
    site.settle()
    assert site.alive == {}
    assert site.fleet.jobs == {}


def happen(site: MakeBelieve, chance: random.Random, most: int) -> None:
    """One thing that may happen at a site."""
    name = chance.choice(list(site.alive)) if site.alive else ""
    kind = chance.randrange(14)
    if kind <= 2:
        site.want(chance.randint(0, most), most)
    elif kind == 3:
        site.refuses = chance.random() < 0.3
    elif kind == 4:
        site.deaf = chance.random() < 0.3
    elif kind == 5:
        site.slow_to_cancel = chance.random() < 0.5
    elif not name:
        return
    elif kind == 6:
        site.start(name)
    elif kind <= 9:
        site.connect(name, busy=chance.random() < 0.5)
    elif kind == 10:
        site.disconnect(name)
    elif kind == 11:
        site.end(
            name, code=chance.choice([0, 1, -9]), state=chance.choice([JobState.FINISHED, JobState.GONE])
        )
    elif kind == 12:
        site.hold(name, chance.choice(["disk full", "input missing"]))
    else:
        site.evict(name)


# -- a batch system that is wrong -----------------------------------------------------------------------


def test_that_nothing_is_known_of_a_job_is_believed_when_it_is_said_twice(site: MakeBelieve):
    site.want(2)
    site.jobs["0.0"].state = JobState.GONE
    site.wait(5.0)
    assert "0.0" in site.fleet.jobs
    assert site.texts() == []
    site.wait(10.0)
    assert "0.0" not in site.fleet.jobs
    assert "0.0 is gone" in site.texts()[0]


def test_one_wrong_answer_costs_nothing(site: MakeBelieve):
    site.want(3)
    site.connect("0.0")
    for state in (JobState.GONE, JobState.PENDING):
        for job in site.jobs.values():
            job.state = state
        site.wait(5.0)
    site.settle()
    assert site.submissions == [(0.0, 3)]
    assert not [text for text in site.texts() if "gone" in text]


def test_a_connected_worker_is_there_whatever_the_batch_system_says(site: MakeBelieve):
    site.want(2)
    for name in ("0.0", "1.0"):
        site.connect(name)
        site.jobs[name].state = JobState.GONE
    site.settle()
    assert site.submissions == [(0.0, 2)]
    assert len(site.fleet.jobs) == 2
    assert site.texts() == []


def test_a_worker_of_a_job_that_was_given_up_is_ours_again(site: MakeBelieve):
    site.want(1)
    site.jobs["0.0"].state = JobState.GONE
    site.wait(30.0)
    assert "0.0" not in site.fleet.jobs
    site.connect("0.0")
    assert site.fleet.jobs["0.0"].worker


def test_workers_of_a_submission_that_seemed_to_fail_are_ours(site: MakeBelieve):
    site.refuses = True
    site.want(2)
    site.jobs.update({"7.0": BatchJob(), "7.1": BatchJob()})
    site.connect("7.0")
    site.connect("7.1")
    site.refuses = False
    site.settle()
    assert site.submissions == [(0.0, 2)]
    assert sorted(site.fleet.jobs) == ["7.0", "7.1"]


def test_late_news_of_a_job_that_is_over_bring_it_not_back(site: MakeBelieve):
    site.want(1)
    site.connect("0.0")
    site.wait(100.0)
    site.end("0.0")
    site.wait(10.0)
    site.fleet.on_workers([WorkerNews(1, "0.0", "w", "n", 1.0, 0.0)], site.now)
    assert "0.0" not in site.fleet.jobs


def test_what_was_given_up_is_cancelled_too_at_the_end(site: MakeBelieve):
    site.want(1)
    site.jobs["0.0"].state = JobState.GONE
    site.wait(30.0)
    site.jobs["0.0"].state = JobState.PENDING
    site.fleet.on_close(site.now)
    site.turn()
    assert site.jobs["0.0"].cancelled


def test_what_differs_in_numbers_only_is_said_once():
    site = MakeBelieve()
    for number in range(3):
        site.fleet.on_submit_failed(f"/jobs/submission-{number} is on no disk", 0.0)
        site.fleet.on_status_failed(f"squeue: job {number} is odd", 0.0)
        site.fleet.on_cancelled(["0.0"], f"scancel: job {number} is odd", 0.0)
    site.turn()
    assert len(site.texts()) == 3


def test_an_exit_code_is_said_once(site: MakeBelieve):
    site.want(1)
    site.end("0.0", code=5, reason="exit code 5")
    site.settle()
    assert site.texts()[0].startswith("job 0.0 has ended with exit code 5, without having joined")


def test_a_job_that_was_put_back_may_take_its_time_to_start_again(site: MakeBelieve):
    site.want(1)
    site.connect("0.0", busy=True)
    site.wait(100.0)
    site.evict("0.0")
    site.wait(60.0)
    site.start("0.0")
    site.wait(200.0)
    assert not site.jobs["0.0"].cancelled
    assert "has been running" in site.texts()[0]
    site.connect("0.0")
    assert site.submissions == [(0.0, 1)]


def test_one_whose_restart_nobody_saw_may_take_twice_as_long_as_before(site: MakeBelieve):
    site.want(1)
    site.start("0.0")
    site.wait(300.0)
    site.connect("0.0", busy=True)
    site.wait(100.0)
    site.disconnect("0.0")
    site.wait(400.0)
    assert not site.jobs["0.0"].cancelled
    site.wait(400.0)
    assert site.jobs["0.0"].cancelled


def test_a_failure_that_will_pass_is_said_when_it_does_not():
    site = MakeBelieve()
    site.fleet.on_submit_failed("the connection file is gone", 0.0, passing=True)
    site.turn()
    assert site.texts() == []
    site.fleet.on_submit_failed("the connection file is gone", 10.0, passing=True)
    site.turn()
    assert site.texts() == ["workers can't be submitted: the connection file is gone"]
