"""Workers from a batch system that a ``Template`` describes: runs its commands and reads what they print.

All that there is to know of a system is in its template (see ``template``); nothing here knows one by name.
"""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from graphvine.deploy import template as texts
from graphvine.deploy.batch import JobState, JobStatus, Submission, read_tail, run_command, run_leniently
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.deploy.inputs import Inputs, around, place, planned
from graphvine.deploy.script import Surroundings, render_script
from graphvine.deploy.spec import WorkerSpec
from graphvine.deploy.template import Query, Submit, Template

#: The part of a job that starts the worker, where it is not in the job's text.
_SCRIPT = "worker.sh"


class Templated:
    """``template``: one that comes with graphvine, the path of a user's own, or a ``Template``. ``options``:
    other values than the template's for what it calls so. Raises DeployError."""

    def __init__(self, template: str | Template, options: Mapping[str, str] | None = None) -> None:
        found = texts.load_template(template) if isinstance(template, str) else template
        unknown = sorted(set(options or {}) - set(found.options))
        if unknown:
            known = ", ".join(sorted(found.options)) or "none"
            raise DeployError(f"{found.name} has no option {', '.join(unknown)}; there are: {known}")
        self._template = msgspec.structs.replace(found, options={**found.options, **(options or {})})
        self.name = found.name
        self._ended: dict[str, JobStatus] = {}
        self._cancelled: set[str] = set()
        self._directories: dict[str, Path] = {}
        """Of submissions, by job."""

    # -- submitting -----------------------------------------------------------------------------------------

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        """Raises DeployError, and then no job is left."""
        inputs = place(spec, directory)
        values = self._values(spec, count, directory)
        for name, text in self._render(spec, inputs, values).items():
            path = directory / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o700)
        submit = self._way(count)
        command = texts.render_command(submit.command, values)
        stdin = (directory / self._template.file).read_text(encoding="utf-8") if submit.stdin else ""
        printed = run_command(command, stdin=stdin, directory=directory)
        jobs = texts.parse_submitted(submit, printed, count)
        self._directories.update((job, directory) for job in jobs)
        return Submission(tuple(jobs), str(directory))

    def preview(self, spec: WorkerSpec, count: int, directory: Path) -> str:
        """What ``submit`` would do, to be read; nothing is done. Raises DeployError."""
        values = self._values(spec, count, directory)
        submit = self._way(count)
        command = shlex.join(texts.render_command(submit.command, values))
        files = self._render(spec, planned(spec, directory), values)
        shown = [f"# {name}\n{text}" for name, text in files.items()]
        return "\n".join([f"# {command}{f' < {self._template.file}' if submit.stdin else ''}", *shown])

    def _way(self, count: int) -> Submit:
        """How so many are submitted."""
        submit = self._template.submit
        return submit.one if count == 1 and submit.one is not None else submit

    def _values(self, spec: WorkerSpec, count: int, directory: Path) -> dict[str, str]:
        """All that a template may name, but for what is made of it."""
        return {
            **texts.job_values(self._template, spec),
            **texts.submit_values(self._way(count), count),
            "directory": str(directory),
            "file": str(directory / self._template.file),
            "script": str(directory / _SCRIPT),
            "script_name": _SCRIPT,
            "user": getpass.getuser(),
        }

    def _render(self, spec: WorkerSpec, inputs: Inputs, values: Mapping[str, str]) -> dict[str, str]:
        """The files that make up a job, by name. Raises DeployError."""
        template = self._template
        _, _, body = render_script(spec, self._surroundings(inputs)).partition("\n")
        if template.shared:
            body = f'exec >>{shlex.quote(values["directory"])}/"{template.job_id}".out 2>&1\n{body}'
        brought = ", ".join(f'"{path}"' for path in (values["script"], *inputs.named().values()))
        files = {
            template.file: texts.render(
                template.job, {**values, "body": body, "inputs": brought}, template.prefix
            )
        }
        if "{{body}}" not in template.job:
            files[_SCRIPT] = f"#!/bin/sh\n{body}"
        return files

    def _surroundings(self, inputs: Inputs) -> Surroundings:
        """What the template promises to the script."""
        template = self._template
        scratch = f'"{template.scratch}"' if template.scratch else ""
        job = f'"{template.job_id}"'
        if template.shared:
            return around(inputs, job=job, scratch=scratch)
        # All of it is brought to where the job begins.
        return around(inputs, _beside, job=job, scratch=scratch, archive_is_a_copy="true")

    # -- asking ---------------------------------------------------------------------------------------------

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        """One for each job, in that order. Raises DeployError."""
        found: dict[str, JobStatus] = {}
        for query in self._template.status:
            if query.only:
                asked = [
                    job for job, told in found.items() if told.state.value == query.only and not told.reason
                ]
            else:
                asked = [job for job in jobs if job not in found and job not in self._ended]
            if asked:
                told = self._ask(query, asked)
                found.update((job, told[job]) for job in asked if job in told)
        self._ended.update((job, told) for job, told in found.items() if told.state.is_over)
        return [self._told(job, found) for job in jobs]

    def cancel(self, jobs: Sequence[str]) -> None:
        """Raises DeployError."""
        if not jobs:
            return
        cancel = self._template.cancel
        for command, _ in self._commands(cancel.command, jobs):
            run_leniently(command, cancel.harmless)
        self._cancelled.update(jobs)

    def output(self, job: str) -> str:
        """The last lines of what it wrote, where that can be had."""
        directory, output = self._directories.get(job), self._template.output
        if output is None:
            return read_tail(directory / f"{job}.out") if directory is not None else ""
        commands = self._commands(output.command, [job])
        return "".join(run_leniently(command, output.harmless) for command, _ in commands)

    def _told(self, job: str, found: Mapping[str, JobStatus]) -> JobStatus:
        told = found.get(job) or self._ended.get(job)
        if told is not None and not (told.state.is_over and job in self._cancelled):
            return told
        if job in self._cancelled:
            code, host = (told.exit_code, told.host) if told is not None else (None, "")
            return JobStatus(job, JobState.REMOVED, "cancelled", code, host)
        return JobStatus(job, JobState.GONE, f"{self.name} knows nothing of it any more")

    def _ask(self, query: Query, jobs: Sequence[str]) -> dict[str, JobStatus]:
        found = {}
        for command, asked in self._commands(query.command, jobs):
            try:
                text = run_leniently(command, query.harmless)
            except BatchCommandError:
                if query is self._template.status[0]:
                    raise
                continue  # what the others tell is more than enough, and sites may not let users see it
            found.update(texts.parse_status(self._template, query, text, asked))
        return found

    def _commands(
        self, command: Sequence[str], jobs: Sequence[str]
    ) -> list[tuple[list[str], dict[str, str]]]:
        values = {**self._template.options, "user": getpass.getuser()}
        return texts.render_commands(command, jobs, self._template.naming, values)

    def by_hand(self, jobs: Sequence[str]) -> tuple[str, str]:
        """The commands with which a user looks at these jobs, and removes them."""
        look = self._commands(self._template.status[0].command, jobs)
        remove = self._commands(self._template.cancel.command, jobs)
        return shlex.join(look[0][0]), shlex.join(remove[0][0])


def _beside(path: str) -> str:
    return f'"$PWD"/{shlex.quote(Path(path).name)}'
