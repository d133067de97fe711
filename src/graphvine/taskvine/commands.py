"""Commands as entries of a plan, and what is heard of them.

A command is one entry. With one output, that is the file; with several, each is picked from the command's
result by an entry of its own, so that each goes where it is needed by itself.
"""

from __future__ import annotations

import json
import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphvine.protocol.messages import Resources
from graphvine.protocol.payload import Entry
from graphvine.taskvine.files import Environment, File, LocalFile, MiniTask, is_made_apart
from graphvine.taskvine.naming import content_of, kept_name
from graphvine.taskvine.plans import Builder, MissingInputError
from graphvine.taskvine.remote import command as remote
from graphvine.taskvine.remote import description
from graphvine.taskvine.remote.cache import environment_name
from graphvine.taskvine.remote.description import Command, Context, Mount, Outlet, Status
from graphvine.taskvine.remote.here import Making
from graphvine.taskvine.remote.outlets import output_of, pick
from graphvine.taskvine.results import WORD_OF_KIND, Report, Summary

if TYPE_CHECKING:
    from graphvine.manager.engine import Outcome
    from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")


def enter(builder: Builder, task: Task) -> None:
    """Add a task and its outputs. Raises MissingInputError."""
    outlets = [Outlet(output.name, output.when, output.watch) for output in task._outputs]
    entry = _add(builder, task, outlets, task.id)
    files = [output.file for output in task._outputs]
    builder.begin(task, entry, _members(builder, entry, files, task))


def enter_minitask(builder: Builder, file: MiniTask) -> int:
    """Add what makes a mini-task's file; the entry that the file is. Raises MissingInputError."""
    return _add(builder, file.task, [Outlet(file.output, mode=file.mode or 0)], file.label, file)


def _members(builder: Builder, entry: int, files: list[File], task: Task) -> list[tuple[File, int]]:
    if len(files) == 1:
        return [(files[0], entry)]
    return [
        (
            file,
            builder.add((pick, (position,), None), [entry], f"output {position} of task {task.id}", "pick"),
        )
        for position, file in enumerate(files)
    ]


def _add(
    builder: Builder, task: Task, outlets: list[Outlet], key: object, file: MiniTask | None = None
) -> int:
    slots: dict[int, int] = {}
    made: list[Making] = []
    # What is an output, too, will be written to.
    written = [outlet.name for outlet in outlets]
    mounts = [
        Mount(
            slot(builder, mount.file, slots, mount.name, made),
            mount.name,
            any(name == mount.name or name.startswith(f"{mount.name}/") for name in written),
            mount.symlink,
            kept_name(mount.file) if isinstance(mount.file, LocalFile) else "",
        )
        for mount in task._inputs
    ]
    contexts = [
        Context(
            slot(builder, file, slots, "its environment", made),
            environment_name(content_of(file.archive)) if isinstance(file, Environment) else "",
        )
        for file in task._contexts
    ]
    options = builder.options_of(task)
    spec = Command(
        task.command,
        mounts,
        outlets,
        _granted(*_amounts(options.request)) | task._variables,
        contexts,
        task._time_max,
        task._time_end / 1e6,
        _threads(options.request),
        builder.limits_of(options.request),
        made,
    )
    entry: Entry = (remote.run, (description.encode(spec),), None)
    if file is not None:
        entry = builder.kept(file, entry)
    return builder.add(entry, list(slots), key, task.category, options)


def _amounts(request: Resources) -> tuple[float, float, float, float]:
    return request.cores, request.memory_mb, request.disk_mb, request.gpus


@lru_cache(64)
def _granted(cores: float, memory_mb: float, disk_mb: float, gpus: float) -> dict[str, str | None]:
    """Variables that tell a command what it may use, as far as it was stated. Not to be changed."""
    stated = {"CORES": cores, "MEMORY": memory_mb, "DISK": disk_mb, "GPUS": gpus}
    return {name: f"{amount:g}" for name, amount in stated.items() if amount > 0}


def _threads(request: Resources) -> int:
    """One for each core. A command for which nothing is stated has the whole worker."""
    if request == Resources(0.0):
        return 0
    return max(1, int(request.cores))


def slot(builder: Builder, file: File, slots: dict[int, int], name: str, made: list[Making]) -> int:
    """Which input of an entry a file is; to be among those that are ``made`` on each worker, if it is that.
    Raises MissingInputError."""
    try:
        if is_made_apart(file):
            entry, inputs = builder.making(file)
            made.append(Making(file.apart, entry, [slots.setdefault(one, len(slots)) for one in inputs]))
            return -len(made)
        reference = builder.input(file)
    except MissingInputError as error:
        raise MissingInputError(f"{name}: {error}") from None
    return slots.setdefault(reference, len(slots))


def read(task: Task, outcome: Outcome) -> Report:
    """What became of a command."""
    report = report_of(outcome)
    if not outcome.note:
        if outcome.ok:
            report.result, report.reason = "unknown", "the worker did not say what became of the command"
        return report
    status = description.decode_status(outcome.note)
    report.exit_code, report.output, report.exceeded = status.exit_code, status.output, status.exceeded
    report.measured = _measured(task, status)
    if outcome.ok or outcome.kind not in ("cancelled", "killed", "timeout"):
        report.result, report.reason = status.word, status.reason
    if not outcome.ok and status.word == "success":
        report.result, report.reason = WORD_OF_KIND.get(outcome.kind, "unknown"), outcome.text.rstrip()
    write_summary(task, report)
    return report


#: Makes the standard output of a command's own result, where it is too long for a status.
OUTPUT_ENTRY: Entry = (output_of, (), None)


def awaits_output(outcome: Outcome) -> bool:
    """Whether a command's standard output is still to be fetched."""
    return outcome.ok and bool(outcome.note) and description.decode_status(outcome.note).kept_bytes > 0


def take_output(report: Report, value: Any, error: BaseException | None) -> None:
    """The standard output that was fetched."""
    if error is None:
        report.output = value
    elif report.result == "success":
        report.result, report.reason = "stdout missing", f"the standard output cannot be fetched: {error}"


def report_of(outcome: Outcome) -> Report:
    """What the engine says of an entry, for any kind of task."""
    report = Report(
        worker=outcome.worker,
        host=outcome.host,
        tries=outcome.tries,
        request=outcome.request,
        capacity=outcome.capacity,
    )
    if not outcome.ok:
        report.result, report.reason = WORD_OF_KIND.get(outcome.kind, "unknown"), outcome.text
        report.exit_code = -1
    return report


def _measured(task: Task, status: Status) -> Summary:
    wall = max(0, status.ended - status.began)
    return Summary(
        category=task.category,
        start=status.began,
        end=status.ended,
        wall_time=wall,
        cpu_time=status.cpu,
        cores=round(status.cpu / wall, 3) if wall else 0.0,
        cores_avg=round(status.cpu / wall, 3) if wall else 0.0,
        gpus=max(0.0, task._asked.gpus),
        memory=round(status.memory, 3),
        disk=round(status.disk, 3),
        total_files=status.files,
        exit_status=status.exit_code,
    )


def write_summary(task: Task, report: Report) -> None:
    if task._monitor_output is None or report.measured is None:
        return
    import msgspec

    path = os.path.join(task._monitor_output, f"vine-{os.getpid()}-task-{task.id}.summary")
    try:
        os.makedirs(task._monitor_output, exist_ok=True)
        with open(path, "w") as file:
            json.dump(msgspec.structs.asdict(report.measured), file, indent=1)
    except OSError as error:
        # What the task made is there all the same.
        log.warning("what was measured of task %d cannot be written: %s", task.id, error)
