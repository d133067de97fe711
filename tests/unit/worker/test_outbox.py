"""News for the manager: one report, or as many as frames allow."""

from __future__ import annotations

from graphvine.protocol.codec import FRAME_BYTES, encode_frames
from graphvine.protocol.messages import Report, TaskDone, TaskFailed
from graphvine.worker.instructions import SayToManager
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
