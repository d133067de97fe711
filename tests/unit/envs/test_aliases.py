"""Archives whose names say where they come from: what is in them decides."""

from __future__ import annotations

import os

from graphvine.envs.aliases import known, of_archive
from graphvine.envs.unpack import acquire, hold
from graphvine.envs.writer import digest_of


def test_one_content_has_one_name_here(tmp_path, make_archive):
    archive, cache = make_archive({"lib/x": b"1"}), str(tmp_path / "cache")
    content = f"env-{digest_of(archive)}"
    assert known("url-1", cache) == "url-1"
    assert of_archive(archive, "url-1", cache) == of_archive(archive, "", cache) == content
    assert of_archive(archive, "unnamed-1", cache) == content
    assert known("url-1", cache) == content
    assert known("unnamed-1", cache) == "unnamed-1"
    assert known("mine", cache) == of_archive(archive, "mine", cache) == "mine"


def test_what_is_unpacked_is_not_looked_at_again(tmp_path, make_archive):
    archive, cache = make_archive({"lib/x": b"1"}), str(tmp_path / "cache")
    name = of_archive(archive, "url-1", cache)
    with acquire(archive, name, cache):
        pass
    os.unlink(archive)
    assert of_archive(archive, "url-1", cache) == name
    with hold(known("url-1", cache), cache) as held:
        assert held.prefix.endswith(name)


def test_words_about_what_is_not_here_go(tmp_path, make_archive):
    cache = tmp_path / "cache"
    first = make_archive({"lib/x": b"1"}, name="first.tar.gz")
    second = make_archive({"lib/x": b"2"}, name="second.tar.gz")
    of_archive(first, "url-1", str(cache))
    of_archive(second, "url-2", str(cache))
    assert sorted(path.name for path in cache.glob("*.alias")) == ["url-2.alias"]
    (cache / "url-2.alias").write_text("../../etc")
    assert known("url-2", str(cache)) == "url-2"
    assert of_archive(second, "url-2", str(cache)) == f"env-{digest_of(second)}"
