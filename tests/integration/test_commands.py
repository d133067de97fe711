"""Commands in sandboxes on real workers, as scripts written for TaskVine run them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import graphvine as vine
from graphvine.manager.manager import Manager
from graphvine.protocol.errors import ManagerClosedError


@pytest.fixture
def m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    with vine.Manager(local_workers=2) as manager:
        yield manager


def done(m: Manager, task: vine.Task) -> vine.Task:
    """Submit a task, and wait for it."""
    m.submit(task)
    over = m.wait(60)
    assert over is task
    return task


def test_a_command_its_files_and_what_is_known_of_it(m, tmp_path):
    words = m.declare_buffer("needle\nhay\n", cache=True)
    out, local = m.declare_buffer(), m.declare_file(str(tmp_path / "made" / "copy.txt"))
    task = vine.Task("grep needle in/words; echo oops >&2; cp in/words copy; echo $NAME > out; exit 3")
    task.add_input(words, "in/words")
    task.add_output(out, "out")
    task.add_output(local, "copy")
    task.set_env_var("NAME", "a name")
    task.set_cores(1)
    done(m, task)
    assert (task.result, task.exit_code, task.completed(), task.successful()) == ("success", 3, True, False)
    assert task.output == task.std_output == "needle\noops\n"
    assert out.contents() == b"a name\n"
    assert (tmp_path / "made" / "copy.txt").read_text() == "needle\nhay\n"
    measured = task.resources_measured
    assert measured is not None
    assert measured.wall_time == measured.end - measured.start > 0
    assert measured.memory >= 0
    assert task.hostname
    assert task.get_metric("total_submissions") == 1
    assert task.get_metric("time_when_done") >= task.get_metric("time_when_submitted") > 0
    assert m.empty()


def test_chains_of_temps_stay_on_the_workers(m):
    temps = [m.declare_temp() for _ in range(20)]
    first = vine.Task("echo 0 > n", cores=1)
    first.add_output(temps[0], "n")
    m.submit(first)
    for before, after in pairwise(temps):
        task = vine.Task("echo $(($(cat before) + 1)) > after", cores=1)
        task.add_input(before, "before")
        task.add_output(after, "after")
        m.submit(task)
    results = []
    while not m.empty():
        task = m.wait(60)
        results.append((task.result, task.reason))
    assert results == [("success", "")] * 20
    assert m.fetch_file(temps[-1]) == "19\n"


def test_a_task_may_be_submitted_before_the_one_that_makes_its_temp(m):
    temp = m.declare_temp()
    reader = vine.Task("cat made", cores=1)
    reader.add_input(temp, "made")
    m.submit(reader)
    assert m.wait(0) is None
    writer = vine.Task("echo here > made", cores=1)
    writer.add_output(temp, "made")
    m.submit(writer)
    assert [m.wait(60), m.wait(60)] == [writer, reader]
    assert reader.output == "here\n"


def test_hundreds_of_tasks_and_files(m):
    shared = m.declare_buffer("x" * 100, cache=True)
    outputs = {}
    for number in range(300):
        task = vine.Task(f"cat shared own > out; echo {number}", cores=1, tag=str(number % 3))
        task.add_input(shared, "shared")
        task.add_input(m.declare_buffer(f"{number}\n"), "own")
        outputs[number] = m.declare_buffer()
        task.add_output(outputs[number], "out")
        m.submit(task)
    seen = set()
    while not m.empty():
        task = m.wait(60)
        assert task.successful(), task.reason
        seen.add(int(task.output))
    assert seen == set(range(300))
    assert all(outputs[number].contents() == b"x" * 100 + b"%d\n" % number for number in range(300))
    assert m.stats.tasks_done == 300


def test_wait_by_tag_by_number_and_for_fractions_of_a_second(m):
    numbers = [m.submit(vine.Task("true", cores=1, tag=tag)) for tag in ("a", "b", "b")]
    assert m.wait_for_task_id(numbers[2], 60).id == numbers[2]
    assert m.wait_for_tag("a", 60).tag == "a"
    assert m.wait_for_tag("a", 60) is None
    assert m.wait(60).id == numbers[1]
    assert m.wait(0.01) is None
    assert m.wait() is None


@pytest.mark.parametrize(
    ("line", "code"), [("no-such-command-at-all", 127), ("./plain", 126), ("exit 5", 5), ("true", 0)]
)
def test_exit_codes_are_the_shell_s(m, tmp_path, line, code):
    task = vine.Task(line, cores=1)
    (tmp_path / "plain").write_text("not a program")
    task.add_input(m.declare_file(tmp_path / "plain"), "plain")
    done(m, task)
    assert (task.result, task.exit_code) == ("success", code)


@pytest.mark.parametrize("comment", ["", "# " + "x" * 10_000])
def test_a_buffer_may_be_a_script(m, comment):
    task = vine.Task("./script", cores=1)
    task.add_input(m.declare_buffer(f"#!/bin/sh\n{comment}\necho run"), "script")
    assert done(m, task).output == "run\n", task.reason


@pytest.mark.parametrize("mode", [None, 0o600])
def test_files_have_the_mode_that_is_said(m, tmp_path, mode):
    (tmp_path / "there").write_text("x")
    files = {
        "buffer": m.declare_buffer("x"),
        "large": m.declare_buffer("x" * 10_000),
        "url": m.declare_url(f"file://{tmp_path}/there"),
        "mini": m.declare_minitask(vine.Task("seq 3 > made; chmod 755 made"), "made"),
    }
    task = vine.Task(f"stat -c %a {' '.join(files)}", cores=1)
    for name, file in files.items():
        if mode is not None:
            file.set_mode(mode)
        task.add_input(file, name)
    assert done(m, task).output.split() == [f"{mode or 0o755:o}"] * 4, task.reason
    with pytest.raises(ValueError, match="permission bits"):
        files["url"].set_mode(-1)


def test_a_command_that_is_ended_by_a_signal(m):
    task = done(m, vine.Task("kill -SEGV $$", cores=1))
    assert (task.result, task.exit_code) == ("signal", signal.SIGSEGV)
    assert "SIGSEGV" in task.reason


def test_an_output_that_is_not_made_is_named(m):
    good, bad = m.declare_buffer(), m.declare_temp()
    task = vine.Task("echo 1 > good; echo complaint; exit 2", cores=1)
    task.add_output(good, "good")
    task.add_output(bad, "sub/bad")
    done(m, task)
    assert (task.result, task.exit_code, task.completed()) == ("output missing", 2, False)
    assert "sub/bad" in task.reason
    assert "complaint" in task.reason
    assert good.contents() == b"1\n"
    needs = vine.Task("cat bad", cores=1)
    needs.add_input(bad, "bad")
    done(m, needs)
    assert needs.result == "input missing"
    assert "sub/bad" in needs.reason


def test_inputs_that_cannot_be_had(m, tmp_path):
    gone = vine.Task("true", cores=1)
    gone.add_input(m.declare_file(str(tmp_path / "gone")), "x")
    assert "gone" in done(m, gone).reason
    assert gone.result == "input missing"
    empty = vine.Task("true", cores=1)
    empty.add_input(m.declare_buffer(), "x")
    assert done(m, empty).result == "input missing"


def test_an_output_path_that_cannot_be_written_to(m, tmp_path):
    (tmp_path / "file").write_text("in the way")
    task = vine.Task("echo 1 > x", cores=1)
    task.add_output(m.declare_file(str(tmp_path / "file" / "below")), "x")
    done(m, task)
    assert task.result == "output transfer error"
    assert "below" in task.reason
    assert (tmp_path / "file").read_text() == "in the way"


def test_measurements_that_cannot_be_written_do_no_harm(m, tmp_path):
    (tmp_path / "file").write_text("in the way")
    task = done(m, vine.Task("echo 1", cores=1, monitor_output=str(tmp_path / "file")))
    assert (task.result, task.output) == ("success", "1\n")
    assert (tmp_path / "file").read_text() == "in the way"


def test_outputs_for_success_and_for_failure_only(m):
    for code, expected in ((0, (b"s\n", None)), (1, (None, b"f\n"))):
        success, failure = m.declare_buffer(), m.declare_buffer()
        task = vine.Task(f"echo s > s; echo f > f; exit {code}", cores=1)
        task.add_output(success, "s", success_only=True)
        task.add_output(failure, "f", failure_only=True)
        assert done(m, task).result == "success"
        assert (success.data, failure.data) == expected


def test_time_limits(m):
    task = done(m, vine.Task("echo begun; sleep 60 & sleep 60", cores=1, time_max=0.3))
    assert (task.result, task.output) == ("max wall time", "begun\n")
    late = vine.Task("true", cores=1, time_end=(time.time() - 1) * 1e6)
    assert done(m, late).result == "max end time"
    begin_us = (time.time() + 0.3) * 1e6
    later = done(m, vine.Task("true", cores=1, time_start=begin_us))
    assert later.resources_measured.start >= begin_us


def test_what_a_command_leaves_running_is_ended(m, tmp_path):
    note = tmp_path / "pid"
    task = done(m, vine.Task(f"sleep 100 & echo $! > {note}; exit 0", cores=1))
    assert task.successful()
    assert_ends(int(note.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        "setsid sh -c 'echo $$ > {note}; exec sleep 100' & read line < {note}",
        # A daemon as they are made: its parent is gone, and so is its session.
        "(setsid sh -c '(sh -c \"echo \\$\\$ > {note}; exec sleep 100\" &)' &); read line < {note}",
    ],
)
def test_daemons_are_ended_too(m, tmp_path, line):
    os.mkfifo(tmp_path / "pid")
    task = done(m, vine.Task(line.format(note=tmp_path / "pid") + "; echo $line", cores=1))
    assert task.successful()
    assert_ends(int(task.output))
    assert done(m, vine.Task("echo next", cores=1)).output == "next\n"


def test_cancelling_ends_all_of_a_command(m, tmp_path):
    note = tmp_path / "pid"
    os.mkfifo(note)
    task = vine.Task(f"(sleep 100 & echo $! > {note}; wait)", cores=1, tag="mine")
    m.submit(task)
    pid = int(note.read_text())
    assert m.cancel_by_task_tag("mine") == 1
    assert m.wait(60) is task
    assert task.result == "cancelled"
    assert_ends(pid)
    assert m.cancel_by_task_id(task.id) == 0


def assert_ends(pid: int) -> None:
    """The process of this number ends soon, or has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    try:
        assert select.select([descriptor], [], [], 20)[0]
    finally:
        os.close(descriptor)


def test_cancelling_what_has_not_begun(m):
    temp = m.declare_temp()
    held = vine.Task("cat x", cores=1)
    held.add_input(temp, "x")
    m.submit(held)
    tasks = [vine.Task("sleep 0.01", cores=1, category="many") for _ in range(200)]
    for task in tasks:
        m.submit(task)
    assert m.cancel_all() >= 1
    results = set()
    while not m.empty():
        results.add(m.wait(60).result)
    assert held.result == "cancelled"
    assert results <= {"cancelled", "success"}


def test_who_needs_what_is_not_made_is_told_why(m):
    cancelled, raising = vine.Task("sleep 60", cores=1), vine.PythonTask(divmod, 1, 0)
    reasons = []
    for producer in (cancelled, raising):
        temp = m.declare_temp()
        producer.add_output(temp, "made")
        consumer = vine.Task("cat x", cores=1)
        consumer.add_input(temp, "x")
        m.submit(producer)
        m.submit(consumer)
        if producer is cancelled:
            assert m.cancel_by_task_id(producer.id) == 1
        assert m.wait_for_task_id(consumer.id, 60).result == "input missing"
        reasons.append(consumer.reason)
    assert reasons[0] == "x: the task that makes it was cancelled"
    assert "; ZeroDivisionError: " in reasons[1]


def test_who_waits_for_what_will_not_be_made_is_told(m):
    temp, never = m.declare_temp(), m.declare_temp()
    producer = vine.Task("cat never > made", cores=1)
    producer.add_input(never, "never")
    producer.add_output(temp, "made")
    consumers = [vine.Task("cat x", cores=1) for _ in range(3)]
    for consumer in consumers:
        consumer.add_input(temp, "x")
    m.submit(consumers[0])
    m.submit(producer)
    m.submit(consumers[1])
    # It waits itself, so it is not handed over.
    assert m.wait(0.2) is None
    assert m.cancel_by_task_id(producer.id) == 1
    assert {m.wait(60) for _ in range(3)} == {producer, consumers[0], consumers[1]}
    m.submit(consumers[2])
    assert m.wait(60) is consumers[2]
    for consumer in consumers:
        assert consumer.reason == "x: the task that makes it was cancelled"
    again = vine.Task("echo 1 > made", cores=1)
    again.add_output(temp, "made")
    m.submit(again)
    m.submit(consumers[2])
    assert m.wait_for_task_id(consumers[2].id, 60).output == "1\n"


def test_long_standard_output_and_a_file_beside_it(m):
    temp = m.declare_temp()
    task = vine.Task("yes 0123456789 | head -c 200000; echo made > out", cores=1)
    task.add_output(temp, "out")
    done(m, task)
    assert task.successful(), task.reason
    assert len(task.output) == 200_000
    assert task.output.startswith("0123456789\n0123456789\n")
    reader = vine.Task("cat in", cores=1)
    reader.add_input(temp, "in")
    assert done(m, reader).output == "made\n"


def test_directories_go_from_task_to_task(m):
    temp = m.declare_temp()
    writer = vine.Task(
        "mkdir -p d/sub; echo a > d/a; echo b > d/sub/b; ln -s a d/link; chmod 755 d/a", cores=1
    )
    writer.add_output(temp, "d")
    m.submit(writer)
    reader = vine.Task("cat e/a e/sub/b e/link; test -x e/a && echo yes; echo new > e/c", cores=1)
    reader.add_input(temp, "e")
    m.submit(reader)
    assert m.wait(60) is writer
    assert m.wait(60) is reader
    assert reader.output == "a\nb\na\nyes\n"
    again = vine.Task("ls -A e", cores=1)
    again.add_input(temp, "e")
    assert done(m, again).output == "a\nlink\nsub\n"


def test_what_is_input_and_output_is_a_copy(m):
    temp = m.declare_temp()
    writer = vine.Task("seq 5000 > x", cores=1)
    writer.add_output(temp, "x")
    done(m, writer)
    out = m.declare_temp()
    changer = vine.Task("echo more >> x", cores=1)
    changer.add_input(temp, "x")
    changer.add_output(out, "x")
    done(m, changer)
    check = vine.Task("tail -n 1 a; tail -n 1 b", cores=1)
    check.add_input(temp, "a")
    check.add_input(out, "b")
    assert done(m, check).output == "5000\nmore\n"


def test_mini_tasks_run_where_their_file_is_needed(m):
    upper = vine.Task("tr a-z A-Z < in > out")
    upper.add_input(m.declare_buffer("words\n"), "in")
    made = m.declare_mini_task(upper, "out", cache="workflow")
    for _ in range(2):
        task = vine.Task("cat x", cores=1)
        task.add_input(made, "x")
        assert done(m, task).output == "WORDS\n"
    failing = m.declare_minitask(vine.Task("echo no luck; exit 1"), "out")
    task = vine.Task("cat x", cores=1)
    task.add_input(failing, "x")
    done(m, task)
    assert task.result == "input missing"
    assert "the command did not make 'out'" in task.reason
    assert task.reason.endswith("; the command ended with exit code 1 and said: no luck")
    late = vine.Task("sleep 60", time_max=1)
    task = vine.Task("cat x", cores=1)
    task.add_input(m.declare_minitask(late, "out"), "x")
    assert done(m, task).reason.endswith("; it was stopped after 1 s")


def test_what_is_undeclared_is_gone(m, tmp_path):
    path = tmp_path / "partial"
    partial = m.declare_file(str(path), unlink_when_done=True)
    task = vine.Task("echo 1 > x", cores=1)
    task.add_output(partial, "x")
    done(m, task)
    assert path.exists()
    m.undeclare_file(partial)
    assert not path.exists()
    with pytest.raises(ValueError, match="undeclared"):
        vine.Task("true").add_input(partial, "x")
    temp = m.declare_temp()
    task.add_output(temp, "y")
    m.undeclare_file(temp)
    with pytest.raises(FileNotFoundError, match="temp was undeclared"):
        m.fetch_file(temp)


def test_lost_or_pruned_temps_are_made_again(m):
    temp = m.declare_temp()
    writer = vine.Task("seq 3000 > x", cores=1)
    writer.add_output(temp, "x")
    done(m, writer)
    assert m.get_file_replica_count(temp) == 1
    m.prune_file(temp)
    assert m.get_file_replica_count(temp) == 0
    reader = vine.Task("tail -n 1 x", cores=1)
    reader.add_input(temp, "x")
    assert done(m, reader).output == "3000\n"


def test_strict_inputs_must_be_there(m):
    buffer = m.declare_buffer("x", cache=True)
    task = vine.Task("cat x", cores=1)
    task.add_input(buffer, "x", strict_input=True)
    assert done(m, task).result == "fixed location missing"


def test_a_closed_manager_takes_and_returns_nothing(m):
    m.submit(vine.Task("sleep 60", cores=1))
    raised = []

    def wait() -> None:
        with pytest.raises(ManagerClosedError) as error:
            m.wait()
        raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    m.close()
    waiting.join(60)
    assert raised
    with pytest.raises(ManagerClosedError):
        m.submit(vine.Task("true"))


def test_the_quick_start_of_the_manual(m, tmp_path, capsys):
    """Its shape: a file that several tasks share, submitted in a loop, waited for until it is empty."""
    (tmp_path / "book.txt").write_text("a house\nby the water\na needle\nwater\n")
    book = m.declare_url(f"file://{tmp_path / 'book.txt'}", cache="workflow")
    for keyword in ["needle", "house", "water"]:
        task = vine.Task(f"grep {keyword} book.txt | wc -l", tag=keyword)
        task.add_input(book, "book.txt")
        task.set_cores(1)
        m.submit(task)
    found = {}
    while not m.empty():
        task = m.wait(5)
        if task:
            found[task.tag] = int(task.output)
    assert found == {"needle": 1, "house": 1, "water": 2}


def test_a_manager_takes_what_scripts_for_taskvine_give_it(tmp_path, state):
    seen = []
    with vine.Manager(
        [20000, 40000], "first", shutdown=True, ssl=True, run_info_path=str(tmp_path / "info"),
        staging_path=tmp_path / "staging", init_fn=seen.append, local_workers=1,
    ) as m:  # fmt: skip
        assert seen == [m]
        assert 20000 <= m.port <= 40000
        m.set_name("second")
        assert m.name == "second"
        assert sorted(path.stem for path in state.glob("*.json")) == ["first", "second"]
        with pytest.raises(ValueError, match="runs already"):
            m.set_name("first")
        assert m.staging_directory.startswith(str(tmp_path / "staging"))
        assert done(m, vine.Task("echo hello", cores=1)).output == "hello\n"
    assert list((tmp_path / "staging").iterdir()) == []
    with pytest.raises(TypeError, match="no option sll"):
        vine.Manager(sll=True)
    with pytest.raises(ZeroDivisionError):
        vine.Manager(init_fn=lambda m: 1 / 0)


def test_numbers_and_settings(m):
    assert m.hungry() >= 10
    assert m.tune("hungry-minimum", 50) == 0
    assert m.hungry() >= 50
    assert m.tune("no-such-thing", 1) == -1
    m.set_category_resources_max("small", {"cores": 1, "memory": 10})
    tasks = [vine.Task("true", category="small") for _ in range(5)]
    for task in tasks:
        m.submit(task)
    while not m.empty():
        assert m.wait(60).successful()
    stats = m.stats
    assert (stats.tasks_submitted, stats.tasks_done, stats.tasks_failed, stats.tasks_waiting) == (5, 5, 0, 0)
    assert (stats.workers_connected, stats.total_cores) == (1, 2)
    assert (stats.workers_joined, stats.workers_removed, stats.workers_lost) == (1, 0, 0)
    assert m.stats_category("small").tasks_done == 5
    assert m.stats_category("other").tasks_done == 0
    assert m.status("categories")[0]["tasks_done"] == 5
    assert m.status("tasks") == []
    (size,) = m.summarize_workers()
    assert (size["workers"], size["cores"], size["gpus"]) == (1, 2, 0)
    assert size["memory"] == m.stats.total_memory == m.stats.max_memory == m.stats.min_memory > 0
    (row,) = m.status("workers")
    assert (row["cores_total"], row["memory_total"]) == (2, size["memory"])
    with pytest.raises(ValueError, match="ask for"):
        m.status("weather")
    with pytest.raises(NotImplementedError, match="only 'fixed'"):
        m.set_category_mode("small", "max throughput")


def test_only_so_many_of_a_category_at_once(m, tmp_path):
    m.set_category_max_concurrent("one", 1)
    line = f"mkdir {tmp_path}/lock && sleep 0.02; rmdir {tmp_path}/lock"
    for _ in range(8):
        m.submit(vine.Task(line, cores=1, category="one"))
    while not m.empty():
        assert m.wait(60).output == ""


def test_files_and_directories_of_this_machine(m, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "large").write_bytes(bytes(300_000))
    (tree / "link").symlink_to("sub/large")
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * 200_000)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n" + "# padding\n" * 1000 + "echo ran\n")
    program.chmod(0o755)
    for _ in range(2):
        task = vine.Task("./program; wc -c < large; wc -c < d/link; ls d", cores=1)
        task.add_input(m.declare_file(program, cache=True), "program")
        task.add_input(m.declare_file(large), "large")
        task.add_input(m.declare_file(tree, cache="workflow"), "d")
        done(m, task)
        assert task.output.split() == ["ran", "200000", "300000", "link", "sub"], task.reason


def test_a_local_file_that_changed_is_sent_again(m, tmp_path):
    path = tmp_path / "x"
    file = m.declare_file(path, cache=True)
    for text in ("one" * 5000, "two" * 5000, "tri"):
        path.write_text(text)
        task = vine.Task("head -c 3 x", cores=1)
        task.add_input(file, "x")
        assert done(m, task).output == text[:3]


def test_a_local_file_that_changes_before_it_is_used(m, tmp_path):
    held = m.declare_temp()
    small, large, inside = tmp_path / "small", tmp_path / "large", tmp_path / "d" / "sub" / "inside"
    inside.parent.mkdir(parents=True)
    for path in (small, large, inside):
        path.write_bytes(bytes(5 if path is small else 5000))
    tasks = []
    for path in (small, large):
        task = vine.Task("wc -c < x", cores=1)
        task.add_input(m.declare_file(path, cache=True), "x")
        task.add_input(held, "held")
        m.submit(task)
        tasks.append(task)
        path.write_bytes(bytes(6000))
    maker = vine.Task("echo 1 > y", cores=1)
    maker.add_output(held, "y")
    m.submit(maker)
    over = [m.wait(60) for _ in range(3)]
    assert set(over) == {maker, *tasks}
    for task in tasks:
        assert task.result == "input missing"
        assert "changed after the task was submitted" in task.reason
    directory = m.declare_file(tmp_path / "d", cache=True)
    for size in (5000, 5001, 5002):
        inside.write_bytes(bytes(size))
        task = vine.Task("wc -c < d/sub/inside", cores=1)
        task.add_input(directory, "d")
        assert done(m, task).output.strip() == str(size), task.reason


def test_a_directory_that_a_command_writes_to_is_nobody_else_s(m):
    temp = m.declare_temp()
    maker = vine.Task("mkdir d; seq 5000 > d/x", cores=1)
    maker.add_output(temp, "d")
    done(m, maker)
    for line in ("echo bad >> d/x", "echo more > s/more"):
        spoiler = vine.Task(line, cores=1)
        spoiler.add_input(temp, "d")
        spoiler.add_input(temp, "s", mount_symlink=True)
        assert done(m, spoiler).successful()
        reader = vine.Task("ls d; tail -n 1 d/x", cores=1)
        reader.add_input(temp, "d")
        assert done(m, reader).output == "x\n5000\n", reader.reason


def test_large_buffers_and_outputs_used_again(m, tmp_path):
    buffer = m.declare_buffer(b"y" * 100_000, cache=True)
    out = m.declare_file(tmp_path / "out", cache=True)
    first = vine.Task("cat in in > out", cores=1)
    first.add_input(buffer, "in")
    first.add_output(out, "out")
    m.submit(first)
    second = vine.Task("wc -c < again", cores=1)
    second.add_input(out, "again")
    m.submit(second)
    assert {m.wait(60), m.wait(60)} == {first, second}
    assert second.output.strip() == "200000"
    assert out.contents() == b"y" * 200_000


def test_a_directory_that_cannot_be_read(m, tmp_path):
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "d").mkdir(mode=0)
    task = vine.Task("ls d", cores=1)
    task.add_input(m.declare_file(tmp_path / "d"), "d")
    assert done(m, task).result == "input missing"


def test_what_is_neither_file_nor_directory(m, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    task = vine.Task("cat x", cores=1)
    task.add_input(m.declare_file(tmp_path / "pipe"), "x")
    assert done(m, task).result == "input missing"
    assert "pipe" in task.reason
    made = vine.Task("mkfifo pipe", cores=1)
    made.add_output(m.declare_temp(), "pipe")
    assert done(m, made).result == "output missing"
    among = vine.Task("mkdir d; mkfifo d/pipe; echo 1 > good", cores=1)
    good = m.declare_buffer()
    among.add_output(m.declare_temp(), "d")
    among.add_output(good, "good")
    assert done(m, among).result == "output missing"
    assert "d (d/pipe is a named pipe" in among.reason
    assert good.contents() == b"1\n"


def test_links_of_a_directory_go_where_it_goes(m, tmp_path, caplog):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("E")
    makes = vine.Task(
        f"mkdir d; ln -s {elsewhere} d/out; ln -s ../.. d/up; ln -s nowhere d/dangling", cores=1
    )
    temp, here = m.declare_temp(), m.declare_file(tmp_path / "here")
    makes.add_output(temp, "d")
    assert done(m, makes).result == "success", makes.reason
    brings = vine.Task("cp -a d here", cores=1)
    brings.add_input(temp, "d")
    brings.add_output(here, "here")
    assert done(m, brings).result == "success", brings.reason
    targets = {"out": str(elsewhere), "up": "../..", "dangling": "nowhere"}
    assert {path.name: os.readlink(path) for path in (tmp_path / "here").iterdir()} == targets
    (tmp_path / "link").symlink_to("here")
    for path in ("here", "link"):
        reads = vine.Task("readlink d/out d/up d/dangling; cat d/out", cores=1)
        reads.add_input(m.declare_file(tmp_path / path), "d")
        assert done(m, reads).output == f"{elsewhere}\n../..\nnowhere\nE", reads.reason
    said = "has links that lead out of it, which are sent as links, without what they lead to: 2 of them"
    assert said in caplog.text


def test_local_files_that_are_kept_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "data"
    path.write_bytes(os.urandom(100_000))
    for _ in range(2):
        with vine.Manager(local_workers=1) as m:
            task = vine.Task("wc -c < x", cores=1)
            file = m.declare_file(path, cache="forever")
            task.add_input(file, "x")
            assert done(m, task).output.strip() == "100000", task.reason
    assert len(list((tmp_path / "cache").glob("file.content-*.json"))) == 1


def test_commands_are_told_what_they_may_use(m):
    line = 'echo "$CORES|$MEMORY|$OMP_NUM_THREADS"'
    assert done(m, vine.Task(line, cores=2, memory=100)).output == "2|100|2\n"
    assert done(m, vine.Task(line, memory=10)).output == "|10|1\n"
    assert done(m, vine.Task(line)).output == "||\n"


def test_a_command_that_kills_its_executor_is_not_tried_for_ever(m):
    task = done(m, vine.Task("kill -9 $PPID; sleep 60", cores=1))
    assert task.result == "max retries"
    assert "SIGKILL" in task.reason


@pytest.mark.parametrize("retries", [1, 3])
def test_a_task_says_how_often_it_is_tried_again(m, tmp_path, retries):
    line = f"echo x >> {tmp_path}/tries; kill -9 $PPID; sleep 60"
    task = done(m, vine.Task(line, cores=1, retries=retries))
    assert task.result == "max retries"
    assert len((tmp_path / "tries").read_text().split()) == retries + 1


def test_what_a_task_was_granted(m):
    """The workers of this test have two cores."""
    m.set_category_resources_max("small", {"memory": 50})
    whole = done(m, vine.Task("true")).resources_allocated
    one = done(m, vine.Task("true", cores=1)).resources_allocated
    stated = done(m, vine.Task("true", cores=1, memory=10, disk=20)).resources_allocated
    by_category = done(m, vine.Task("true", cores=1, category="small")).resources_allocated
    assert (whole.cores, one.cores, whole.gpus) == (2, 1, 0)
    assert one.memory == pytest.approx(whole.memory / 2)
    assert one.disk == pytest.approx(whole.disk / 2)
    assert (stated.cores, stated.memory, stated.disk) == (1, 10, 20)
    assert (by_category.cores, by_category.memory) == (1, 50)


def test_files_belong_to_their_manager(m):
    with vine.Manager(local_workers=0) as other:
        task = vine.Task("true")
        task.add_input(other.declare_buffer("x"), "x")
        with pytest.raises(ValueError, match="another manager"):
            m.submit(task)
        assert m.empty()


def test_a_task_can_be_submitted_again(m):
    temp = m.declare_temp()
    task = vine.Task("seq 2000 > x; echo again", cores=1)
    task.add_output(temp, "x")
    first = done(m, task).id
    second = done(m, task).id
    assert second > first
    reader = vine.Task("tail -n 1 x", cores=1)
    reader.add_input(temp, "x")
    assert done(m, reader).output == "2000\n"


def test_thousands_of_tasks_keep_nothing(m):
    """What is over is let go of: files on the workers, and what the manager knows of them."""
    import gc

    for _ in range(1000):
        task = vine.Task("seq 2000 > x", cores=1)
        task.add_output(m.declare_temp(), "x")
        m.submit(task)
    while not m.empty():
        assert m.wait(60).successful()
    del task
    gc.collect()
    assert m._desk._books.under_way == {}
    assert m.counts().plans == 0


def test_temps_that_were_lost_with_their_worker_are_made_again(bare_manager, start_worker):
    m = bare_manager
    first = start_worker(m, 2)
    temps = []
    for number in range(20):
        temps.append(m.declare_temp())
        task = vine.Task(f"seq {number} 3000 > x", cores=1)
        task.add_output(temps[-1], "x")
        m.submit(task)
    for _ in range(20):
        assert m.wait(60).successful()
    start_worker(m, 2)
    readers = {}
    for number, temp in enumerate(temps):
        task = vine.Task("sleep 0.02; head -n 1 x", cores=1)
        task.add_input(temp, "x")
        readers[m.submit(task)] = number
    assert m.wait(60).successful()
    first.kill()
    while not m.empty():
        task = m.wait(60)
        assert task.successful(), (task.result, task.reason)
        assert int(task.output) == readers[task.id]


def test_an_input_that_a_command_writes_to_is_nobody_else_s(m, tmp_path):
    local = tmp_path / "local"
    local.write_text("0\n" * 5000)
    temp, file = m.declare_temp(), m.declare_file(local, cache=True)
    writer = vine.Task("seq 5000 > x", cores=1)
    writer.add_output(temp, "x")
    done(m, writer)
    for _ in range(2):
        spoiler = vine.Task("echo bad >> x; echo bad >> y", cores=1)
        spoiler.add_input(temp, "x")
        spoiler.add_input(file, "y")
        assert done(m, spoiler).successful()
        reader = vine.Task("tail -n 1 x; tail -n 1 y", cores=1)
        reader.add_input(temp, "x")
        reader.add_input(file, "y")
        assert done(m, reader).output == "5000\n0\n", reader.reason
    assert local.read_text() == "0\n" * 5000


def test_tasks_in_a_circle_are_refused(m):
    temp, other, last = m.declare_temp(), m.declare_temp(), m.declare_temp()
    own = vine.Task("cat x > y", inputs={temp: "x"}, outputs={temp: "y"})
    with pytest.raises(ValueError, match="in a circle"):
        m.submit(own)
    first = vine.Task("cat x > y", cores=1, inputs={temp: "x"}, outputs={other: "y"})
    second = vine.Task("cat x > y", cores=1, inputs={other: "x"}, outputs={last: "y"})
    closing = vine.Task("cat x > y", cores=1, inputs={last: "x"}, outputs={temp: "y"})
    m.submit(first)
    m.submit(second)
    with pytest.raises(ValueError, match="in a circle"):
        m.submit(closing)
    start = vine.Task("echo 1 > y", cores=1, outputs={temp: "y"})
    m.submit(start)
    assert [m.wait(60) for _ in range(3)] == [start, first, second]
    assert last.contents() == b"1\n"


def test_tasks_of_a_plan_that_is_refused_are_over(m):
    temp = m.declare_temp()
    done(m, vine.Task("echo 1 > y", cores=1, outputs={temp: "y"}))
    m.release([temp.number])  # behind the back of whoever counts
    task = done(m, vine.Task("cat x", cores=1, inputs={temp: "x"}))
    assert task.result == "unknown"
    assert "is not there" in task.reason
    assert m.empty()


def test_a_file_that_a_task_reads_and_replaces(m, tmp_path):
    count = tmp_path / "count"
    count.write_text("1\n")
    file = m.declare_file(str(count), cache=True)

    def add_one():
        return vine.Task(
            "expr $(cat n) + 1 > new; mv new n", cores=1, inputs={file: "n"}, outputs={file: "n"}
        )

    done(m, add_one())
    assert count.read_text() == "2\n"
    count.write_text("10\n")
    done(m, add_one())
    assert count.read_text() == "11\n"
    buffer = m.declare_buffer("1\n")
    done(m, vine.Task("echo 2 >> n", cores=1, inputs={buffer: "n"}, outputs={buffer: "n"}))
    assert buffer.contents() == b"1\n2\n"


def test_tasks_that_replace_one_file_follow_each_other(m):
    buffer = m.declare_buffer("0")
    for _ in range(20):
        m.submit(
            vine.Task("echo $(($(cat n) + 1)) > n", cores=1, inputs={buffer: "n"}, outputs={buffer: "n"})
        )
    last = vine.Task("cat n", cores=1, inputs={buffer: "n"})
    m.submit(last)
    over = [m.wait(60) for _ in range(21)]
    assert all(task is not None and task.successful() for task in over), [task.reason for task in over]
    assert last.output == "20\n"


def test_two_tasks_that_make_one_file_are_both_over(m, tmp_path):
    begun, go = tmp_path / "begun", tmp_path / "go"
    os.mkfifo(begun)
    os.mkfifo(go)
    out = m.declare_file(str(tmp_path / "out"))
    slow = vine.Task(f"echo > {begun}; cat {go} > x", cores=1, outputs={out: "x"})
    quick = vine.Task("echo quick > x", cores=1, outputs={out: "x"})
    m.submit(slow)
    begun.read_text()
    m.submit(quick)
    assert m.wait(60) is quick
    go.write_text("slow\n")
    assert m.wait(60) is slow
    assert slow.successful()
    assert m.empty()


def test_a_task_belongs_to_one_manager_until_it_is_over(m, tmp_path):
    with vine.Manager(local_workers=1) as other:
        held = vine.Task("cat x", inputs={m.declare_temp(): "x"})
        m.submit(held)
        with pytest.raises(ValueError, match="another manager"):
            other.submit(held)
        m.cancel_all()
        assert m.wait(60) is held
        held = vine.Task("echo 1", cores=1)
        assert done(m, held).output == done(other, held).output == "1\n"
