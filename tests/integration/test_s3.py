"""Objects of an S3 store, read by s3fs on real workers: files, directories, errors, changes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.s3 import ObjectStore, s3

import graphvine as vine
from graphvine.manager.manager import Manager

__all__ = ["s3"]

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.skipif(
        importlib.util.find_spec("s3fs") is None, reason="needs s3fs: pip install 'graphvine[s3]'"
    ),
]

DATA = os.urandom(6_000_000)


@pytest.fixture
def m(cache: Path, s3: ObjectStore) -> Iterator[Manager]:
    with vine.Manager(local_workers=2) as manager:
        yield manager


def read(m: Manager, url: str, line: str, **options: object) -> vine.Task:
    task = vine.Task(line, cores=1)
    task.add_input(m.declare_url(url, **options), "x")
    m.submit(task)
    assert m.wait(60) is task
    return task


def test_objects_and_what_has_no_object(m: Manager, s3: ObjectStore) -> None:
    s3.objects = {"store/large": DATA, "store/part/a b": b"one", "store/part/\xe9": b"two"}
    assert read(m, "s3://store/large", "md5sum < x").output.split()[0] == hashlib.md5(DATA).hexdigest()
    assert read(m, "s3://store/part", "cat x/*").output == "onetwo"
    assert read(m, "s3://store/part/a b", "cat x").output == "one"
    for url in ("s3://store/nothing", "s3://nowhere/x"):
        task = read(m, url, "cat x")
        assert (task.result, task.reason) == ("input missing", f"x: {url}: there is no such file")


@pytest.mark.parametrize("level", ["workflow", "forever"])
def test_an_object_that_was_replaced_is_read_again(m: Manager, s3: ObjectStore, level: str) -> None:
    s3.objects = {"store/x": b"first"}
    assert read(m, "s3://store/x", "cat x", cache=level).output == "first"
    s3.objects = {"store/x": b"other"}
    assert read(m, "s3://store/x", "cat x", cache=level).output == "other"
