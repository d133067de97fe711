"""A run's progress as text and as HTML. Pure: a snapshot in, lines out; no clock, no terminal.

One line for the whole run, then a line per category in the plan's order as long as there is room; the rest
are folded into one. A bar shows what is done, then what is running.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from graphvine.manager.engine import CategoryProgress, Progress

#: Below this width there are no bars, only numbers.
_BAR_FROM_WIDTH = 50
_MAX_BAR = 40
_NAME_WIDTH = 24
#: No estimate is worth anything beyond a year.
_TOO_LONG_S = 365 * 86400.0


_Part = Progress | CategoryProgress


class Style(NamedTuple):
    """What the terminal can show."""

    unicode: bool = True
    colour: bool = True


PLAIN = Style(colour=False)


class _Columns(NamedTuple):
    width: int
    name: int
    bar: int


_DONE, _RUNNING, _FAILED, _DIM = "32", "33", "31", "2"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def render_progress(
    progress: Progress, width: int, rate: float = 0.0, style: Style = PLAIN, max_lines: int = 10
) -> list[str]:
    """The lines of one picture of a run, none wider than ``width`` columns (escape codes not counted).

    ``rate`` is tasks per second now, 0 when not known. At most ``max_lines`` lines, at least one.
    """
    # Categories of which nothing is left (fused away, computed before) are not worth a line.
    categories = [category for category in progress.categories if category.total]
    shown, folded = _fold(categories if len(categories) > 1 else [], max_lines - 1)
    title = _title(progress)
    columns = _columns([title, *(category.name for category in shown)], width)
    lines = [_line(title, progress, _words(progress, rate), columns, style)]
    lines += [_line(c.name, c, _category_words(c), columns, style) for c in shown]
    if folded and max_lines > 1:
        lines.append(_paint(_cut(_folded_text(folded), width, style), _DIM, style))
    return lines


def time_left_s(progress: Progress, rate: float) -> float | None:
    """Seconds until the rest is done at ``rate`` tasks per second; None when nobody can know."""
    if progress.finished or rate <= 0 or progress.done == 0:
        return None
    left_s = (progress.total - progress.done) / rate
    return left_s if 0 <= left_s < _TOO_LONG_S else None


def render_seconds(seconds: float) -> str:
    """``0:07``, ``3:20`` or ``1:02:45``; tenths below ten seconds are for finished runs (``7.3 s``)."""
    whole = int(seconds + 0.5)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"


def render_rate(rate: float) -> str:
    """``3,100/s``, ``12.4/s``, or ``7.5/min`` for slow ones."""
    if rate >= 100:
        return f"{rate:,.0f}/s"
    if rate >= 1:
        return f"{rate:.1f}/s"
    return f"{rate * 60:.1f}/min"


def render_html(progress: Progress, rate: float = 0.0, max_lines: int = 14) -> str:
    """The same picture for a notebook."""
    shown, folded = _fold([category for category in progress.categories if category.total], max_lines)
    rows = [_html_row(c.name, c.done, c.running, c.failed, c.total) for c in shown]
    if folded:
        rows.append(f'<tr><td colspan="3" style="opacity:.6">{escape(_folded_text(folded))}</td></tr>')
    words = escape("  ".join(_words(progress, rate)))
    head = _html_row(_title(progress), progress.done, progress.running, progress.failed, progress.total)
    return (
        '<div style="font-family:monospace;font-size:13px">'
        f'<table style="border-collapse:collapse">{head}{"".join(rows) if len(shown) > 1 else ""}</table>'
        f'<div style="opacity:.75">{words}</div></div>'
    )


# -- pieces ----------------------------------------------------------------------------------------------


def _columns(names: list[str], width: int) -> _Columns:
    name = max(1, min(_NAME_WIDTH, width // 3, max(map(len, names))))
    bar = min(_MAX_BAR, width // 3) if width >= _BAR_FROM_WIDTH else 0
    return _Columns(width, name, bar)


def _line(name: str, part: _Part, words: list[str], columns: _Columns, style: Style) -> str:
    """Name, bar, percent, counts, then as many words as fit, the least needed dropped first."""
    left = _cut(name, columns.name, style).ljust(columns.name)
    numbers = f"{_percent(part):3d}%  {part.done:,}/{part.total:,}"
    if not columns.bar:
        words = [f"{left} {numbers}", *words]
    else:
        words = [f"{left}  {'#' * columns.bar} {numbers}", *words]
    while len(words) > 1 and sum(map(len, words)) + 2 * (len(words) - 1) > columns.width:
        words.pop()
    text = _cut("  ".join(words), columns.width, style)
    if not columns.bar:
        return text
    end = columns.name + 2 + columns.bar
    return text[: columns.name + 2] + _bar(part, columns.bar, style) + text[end:]


def _title(progress: Progress) -> str:
    """The run's label, unless it could be taken for a category's."""
    names = {category.name for category in progress.categories}
    return progress.label if progress.label and progress.label not in names else "all tasks"


def _words(progress: Progress, rate: float) -> list[str]:
    """What to say beside the counts, the most wanted first."""
    words = []
    left = time_left_s(progress, rate)
    if progress.failed:
        words.append(_failed_words(progress))
    if progress.finished:
        words.append(f"in {_short_seconds(progress.elapsed_s)}")
    elif left is not None:
        words.append(f"{render_seconds(left)} left")
    elif progress.workers == 0:
        words.append("waiting for a worker")
    if rate > 0:
        words.append(render_rate(rate))
    if progress.workers:
        words.append(f"{_count(progress.workers, 'worker')}, {_count(progress.cores, 'core')}")
    if progress.recomputed:
        words.append(f"{progress.recomputed:,} made again")
    return words


def _category_words(category: CategoryProgress) -> list[str]:
    words = []
    if category.failed:
        words.append(_failed_words(category))
    if category.running and category.done < category.total:
        words.append(f"{category.running:,} on workers")
    return words


def _failed_words(part: _Part) -> str:
    return "1 try failed" if part.failed == 1 else f"{part.failed:,} tries failed"


def _bar(part: _Part, width: int, style: Style) -> str:
    """``width`` columns: done, failed, on workers, rest. What is not all done never looks full."""
    if not style.unicode:
        whole, _, red, busy, rest = _shares(part, width - 2)
        return "[" + "#" * whole + "x" * red + "-" * busy + "." * rest + "]"
    whole, eighth, red, busy, rest = _shares(part, width)
    middle = ""
    if eighth and rest and not red and not busy:
        middle, rest = _EIGHTHS[eighth], rest - 1
    return (
        _paint("█" * whole + middle, _DONE, style)
        + _paint("█" * red, _FAILED, style)
        + _paint("▒" * busy, _RUNNING, style)
        + _paint("░" * rest, _DIM, style)
    )


def _shares(part: _Part, width: int) -> tuple[int, int, int, int, int]:
    """Columns of a bar: done, eighths of the next one, failed, on workers, rest."""
    total = max(part.total, 1)
    whole, eighth = divmod(min(part.done, total) * width * 8 // total, 8)
    red = min(width - whole, -(-part.failed * width // total))
    busy = min(width - whole - red, -(-part.running * width // total))
    return whole, eighth, red, busy, width - whole - red - busy


def _fold(
    categories: list[CategoryProgress], room: int
) -> tuple[list[CategoryProgress], list[CategoryProgress]]:
    """The categories to show, and those that share the last line. Finished ones are folded first."""
    if len(categories) <= room:
        return categories, []
    room = max(room - 1, 0)
    by_interest = sorted(
        categories, key=lambda c: (c.failed == 0, c.running == 0, c.done >= c.total, -c.total)
    )
    kept = {id(category) for category in by_interest[:room]}
    return [c for c in categories if id(c) in kept], [c for c in categories if id(c) not in kept]


def _folded_text(folded: list[CategoryProgress]) -> str:
    done, total = sum(c.done for c in folded), sum(c.total for c in folded)
    return f"and {_count(len(folded), 'other')}: {done:,}/{total:,}"


def _percent(part: _Part) -> int:
    return 100 * part.done // part.total if part.total else 100


def _short_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else render_seconds(seconds)


def _count(number: float, word: str) -> str:
    return f"{number:,g} {word}" if number == 1 else f"{number:,g} {word}s"


def _paint(text: str, code: str, style: Style) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if style.colour and text else text


def _cut(text: str, width: int, style: Style) -> str:
    if len(text) <= width:
        return text
    mark = "…" if style.unicode else "~"
    return text[: max(width - 1, 0)] + (mark if width > 0 else "")


def _html_row(name: str, done: int, running: int, failed: int, total: int) -> str:
    share = 100 / max(total, 1)
    parts = (("#2e9e4f", done), ("#d13b3b", failed), ("#e8b93c", running))
    blocks = "".join(
        f'<div style="width:{n * share:.2f}%;background:{colour}"></div>' for colour, n in parts if n
    )
    return (
        f'<tr><td style="text-align:left;padding-right:1em">{escape(name)}</td>'
        f'<td><div style="display:flex;width:260px;height:12px;background:#8883;border-radius:2px;'
        f'overflow:hidden">{blocks}</div></td>'
        f'<td style="padding-left:1em;text-align:right">{done:,}/{total:,}</td></tr>'
    )
