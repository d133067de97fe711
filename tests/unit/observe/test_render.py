"""Progress as text: what it says, that it fits, and that it never claims too much."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.manager.engine import CategoryProgress, Progress
from graphvine.observe.render import (
    Style,
    render_html,
    render_progress,
    render_rate,
    render_seconds,
    time_left_s,
)

PLAIN = Style(unicode=True, colour=False)
ASCII = Style(unicode=False, colour=False)


def snapshot(*categories: CategoryProgress, **changes) -> Progress:
    fields = {
        "label": "",
        "total": sum(c.total for c in categories),
        "done": sum(c.done for c in categories),
        "running": sum(c.running for c in categories),
        "failed": sum(c.failed for c in categories),
        "recomputed": 0,
        "workers": 2,
        "cores": 8.0,
        "elapsed_s": 3.0,
        "finished": False,
        "categories": list(categories),
    }
    return Progress(**(fields | changes))


def plain(line: str) -> str:
    return re.sub(r"\x1b\[\d+m", "", line)


def test_the_first_line_says_it_all():
    (line,) = render_progress(snapshot(CategoryProgress("fill", 2000, 500, 16)), 120, 100.0, PLAIN)
    for word in ("25%", "500/2,000", "0:15 left", "100/s", "2 workers, 8 cores"):
        assert word in line


def test_a_line_per_category_when_there_are_several():
    lines = render_progress(
        snapshot(CategoryProgress("fill", 10, 5, 2), CategoryProgress("sum", 2)), 120, 1.0, PLAIN
    )
    assert [line.split()[0] for line in lines] == ["all", "fill", "sum"]
    assert "5/10" in lines[1]
    assert "2 on workers" in lines[1]


def test_many_categories_are_folded_and_the_busy_ones_stay():
    categories = [CategoryProgress(f"c{i}", 10, 10) for i in range(20)] + [CategoryProgress("busy", 10, 1, 3)]
    lines = render_progress(snapshot(*categories), 120, 1.0, PLAIN, max_lines=4)
    assert len(lines) == 4
    assert any(line.startswith("busy") for line in lines)
    assert lines[-1] == "and 19 others: 190/190"


def test_categories_without_tasks_are_not_shown():
    lines = render_progress(snapshot(CategoryProgress("fused", 0), CategoryProgress("f", 3, 1)), 120)
    assert len(lines) == 1


def test_a_label_that_is_a_category_is_not_repeated():
    both = (CategoryProgress("add", 10, 5), CategoryProgress("mul", 2))
    lines = render_progress(snapshot(*both, label="add"), 120)
    assert [line.split()[0] for line in lines] == ["all", "add", "mul"]
    assert render_progress(snapshot(*both, label="fit"), 120)[0].startswith("fit ")


def test_the_end_says_how_long_it_took():
    line = render_progress(snapshot(CategoryProgress("f", 10, 10), finished=True, elapsed_s=7.26), 120, 1.4)[
        0
    ]
    assert "100%" in line
    assert "in 7.3 s" in line
    assert "left" not in line


def test_failures_waiting_and_recomputation_are_said():
    text = render_progress(snapshot(CategoryProgress("f", 10, 3, 0, 2), recomputed=4), 150, 1.0, PLAIN)[0]
    assert "2 tries failed" in text
    assert "4 made again" in text
    waiting = render_progress(snapshot(CategoryProgress("f", 10), workers=0, cores=0.0), 120, 0.0, PLAIN)[0]
    assert "waiting for a worker" in waiting


def test_one_is_not_many():
    line = render_progress(snapshot(CategoryProgress("f", 10, 1), workers=1, cores=1.0), 120, 1.0, PLAIN)[0]
    assert "1 worker, 1 core" in line


def test_no_colour_and_no_unicode_when_they_cannot_be_shown():
    progress = snapshot(CategoryProgress("a" * 60, 10, 3, 2, 1), CategoryProgress("g", 3))
    for line in render_progress(progress, 80, 1.0, ASCII):
        line.encode("ascii")
        assert "\x1b" not in line
    assert "\x1b" in render_progress(progress, 80, 1.0, Style())[0]


counts = st.integers(0, 10**7)
categories = st.lists(
    st.builds(
        CategoryProgress,
        name=st.text(st.characters(codec="latin-1", categories=["L", "N", "P"]), max_size=60),
        total=counts,
        done=counts,
        running=counts,
        failed=counts,
    ),
    max_size=15,
)


@given(
    categories,
    st.integers(1, 300),
    st.integers(1, 12),
    st.floats(0, 1e7),
    st.builds(Style, st.booleans(), st.booleans()),
    st.booleans(),
)
def test_it_always_fits(found, width, max_lines, rate, style, finished):
    progress = snapshot(*found, finished=finished, elapsed_s=12345.6)
    lines = render_progress(progress, width, rate, style, max_lines)
    assert 1 <= len(lines) <= max_lines
    assert all(len(plain(line)) <= width for line in lines)


@given(st.integers(1, 10**6), st.data())
def test_a_bar_is_full_only_when_all_is_done(total, data):
    done = data.draw(st.integers(0, total - 1))
    (line,) = render_progress(snapshot(CategoryProgress("f", total, done)), 120, 0.0, ASCII)
    assert "." in line
    assert "100%" not in line
    (line,) = render_progress(snapshot(CategoryProgress("f", total, total)), 120, 0.0, ASCII)
    assert "." not in line.split("]")[0]
    assert "100%" in line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (3765, "1:02:45")]
)
def test_seconds(seconds, text):
    assert render_seconds(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(3100.4, "3,100/s"), (12.44, "12.4/s"), (0.125, "7.5/min")])
def test_rates(rate, text):
    assert render_rate(rate) == text


def test_nobody_knows_the_time_left_before_something_is_done():
    assert time_left_s(snapshot(CategoryProgress("f", 10)), 5.0) is None
    assert time_left_s(snapshot(CategoryProgress("f", 10, 5)), 0.0) is None
    assert time_left_s(snapshot(CategoryProgress("f", 10, 5)), 2.5) == 2.0


def test_html_is_escaped_and_says_the_same():
    html = render_html(snapshot(CategoryProgress("<lambda>", 10, 5, 2), CategoryProgress("g", 2)), 2.0)
    assert "&lt;lambda&gt;" in html
    assert "<lambda>" not in html
    assert "5/10" in html
    assert "0:04 left" in html
