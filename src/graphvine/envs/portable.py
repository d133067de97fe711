"""A virtual environment, or a plain Python prefix, as a prefix that stands on its own wherever it is put.

What ``venv`` makes is tied to the interpreter it was made with. Here interpreter, standard library and
packages become one prefix: Python finds its library beside its program, so no ``pyvenv.cfg`` is needed, and
scripts look for the interpreter beside themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from graphvine.envs.items import Item, data_item, file_item, link_item, walk
from graphvine.envs.packages import merged
from graphvine.envs.survey import Survey, site_packages_of

#: Parts of the standard library that nothing needs at work: tests, examples, the static library.
_NOT_AT_WORK = frozenset(
    {"test", "tests", "idlelib", "idle_test", "turtledemo", "ensurepip", "site-packages"}
)
_OTHER_PARTS = frozenset(
    {"bin", "sbin", "lib", "lib64", "include", "pyvenv.cfg", "conda-meta", "pkgs", "envs"}
)
_ACTIVATION = re.compile(r"(?i)activate|deactivate|python(3(\.\d+)?)?(-config)?$")
_SHEBANG = re.compile(rb"#!.*?python[0-9.]*[^\n]*\n|#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
_PORTABLE_SHEBANG = (
    b'#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"\n\' \'\'\'\n'
)
_CERTIFICATES_MODULE = "_graphvine_certificates"
_CERTIFICATES = b'''"""Where this machine keeps its certificates: OpenSSL knows another one's place."""

import os

if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
    for _path in (
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ):
        if os.path.exists(_path):
            os.environ["SSL_CERT_FILE"] = _path
            break
'''


def python_of(survey: Survey) -> str:
    """The interpreter's name in the archive."""
    return f"bin/python{'.'.join(survey.python.split('.')[:2])}"


def items_of(survey: Survey) -> list[Item]:
    """All that makes the environment, but for libraries of the system. Raises PackingError, OSError."""
    site_packages = site_packages_of(survey.base_executable)
    items = [*_interpreter(survey), *_standard_library(survey), *merged(survey, site_packages)]
    items += [
        data_item(f"{site_packages}/{_CERTIFICATES_MODULE}.py", _CERTIFICATES),
        data_item(f"{site_packages}/{_CERTIFICATES_MODULE}.pth", f"import {_CERTIFICATES_MODULE}\n".encode()),
    ]
    if survey.prefix not in ("/usr", "/usr/local"):
        items += _scripts(survey)
        items += _other_parts(survey)
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(item.target, item)
    return sorted(first.values(), key=lambda item: item.target)


def _interpreter(survey: Survey) -> Iterator[Item]:
    program = python_of(survey)
    yield file_item(survey.executable, program)
    for name in ("bin/python", "bin/python3"):
        yield link_item(name, os.path.basename(program))


def _standard_library(survey: Survey) -> Iterator[Item]:
    def skip(inside: str, name: str) -> bool:
        return name in _NOT_AT_WORK or (
            not inside and (name.startswith("config-") or name == "dist-packages")
        )

    for place in survey.standard:
        if os.path.isdir(place) and _is_standard(place):
            yield from walk(place, os.path.relpath(place, survey.base_prefix), skip)


def _is_standard(place: str) -> bool:
    return os.path.exists(f"{place}/os.py") or os.path.isdir(f"{place}/lib-dynload")


def _scripts(survey: Survey) -> Iterator[Item]:
    directory = os.path.join(survey.prefix, "bin")
    for item in walk(directory, "bin") if os.path.isdir(directory) else ():
        name = os.path.basename(item.target)
        if _ACTIVATION.match(name) or item.link:
            continue
        with open(item.source, "rb") as file:
            head = file.read(512)
            found = _SHEBANG.match(head)
            if found is None:
                yield item
            else:
                data = _PORTABLE_SHEBANG + (head + file.read())[found.end() :]
                yield data_item(item.target, data, item.mode)


def _other_parts(survey: Survey) -> Iterator[Item]:
    """What packages put beside bin and lib: ``share``, ``etc``; and beside Python in lib."""
    is_venv = survey.prefix != survey.base_prefix

    def skip(inside: str, name: str) -> bool:
        return not inside and (name in _OTHER_PARTS or name.startswith("."))

    yield from walk(survey.prefix, "", skip)
    library = os.path.join(survey.prefix, "lib")
    if is_venv and os.path.isdir(library):
        yield from walk(library, "lib", lambda inside, name: not inside and name.startswith("python"))
