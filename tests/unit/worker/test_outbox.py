"""News for the manager: one report, or as many as frames allow."""

from __future__ import annotations

from graphvine.protocol.codec import FRAME_BYTES, encode_frames
from graphvine.protocol.messages import Report, TaskDone, TaskFailed
from graphvine.worker.instructions import DropFiles, SayToManager
from graphvine.worker.outbox import Outbox


def said(box: Outbox) -> list[Report]:
    (instruction,) = box.take()
    assert isinstance(instruction, SayToManager)
    reports = []
    for message in instruction.messages:
        assert isinstance(message, Report)
        reports.append(message)
    return reports


def test_all_news_is_one_report() -> None:
    box = Outbox()
    box.done += [TaskDone(number, 1, b"v", 0.0, 0.0) for number in range(1000)]
    box.lost.append(5)
    (report,) = said(box)
    assert len(report.done) == 1000
    assert report.lost == [5]
    assert box.take() == []


def test_more_than_a_frame_holds_is_several_in_order() -> None:
    box = Outbox()
    box.done += [TaskDone(number, 8000, bytes(8000), 0.0, 0.0) for number in range(5000)]
    box.failed += [TaskFailed(number, 0, "raised", "", bytes(4 * 2**20)) for number in range(6000, 6010)]
    box.fetched.append(7)
    reports = said(box)
    assert [row.task for report in reports for row in report.done] == list(range(5000))
    assert [row.task for report in reports for row in report.failed] == list(range(6000, 6010))
    assert [file for report in reports for file in report.fetched] == [7]
    assert max(map(len, encode_frames(reports))) < 2 * FRAME_BYTES


def done(task: int) -> TaskDone:
    return TaskDone(task, 1, b"v", 0.0, 0.0)


def test_results_wait_for_others_and_not_for_long() -> None:
    box = Outbox()
    box.done.append(done(1))
    assert box.take(10.0, gather_s=0.5) == []
    assert box.due == 10.5
    box.instructions.append(DropFiles([1]))
    box.done.append(done(2))
    assert box.take(10.4, gather_s=0.5) == [DropFiles([1])]
    (instruction,) = box.take(10.5, gather_s=0.5)
    assert isinstance(instruction, SayToManager)
    assert instruction.messages == [Report([done(1), done(2)])]
    assert box.due is None
    assert box.take(11.0, gather_s=0.5) == []


def test_results_go_with_whatever_is_said_and_at_once_when_there_is_no_more_to_do() -> None:
    box = Outbox()
    box.done.append(done(1))
    assert box.take(10.0, gather_s=0.5) == []
    box.returned.append(7)
    (report,) = said(box)
    assert (report.done, report.returned) == ([done(1)], [7])
    box.done.append(done(2))
    assert box.take(10.0, gather_s=0.5) == []
    assert said(box) == [Report([done(2)])]
