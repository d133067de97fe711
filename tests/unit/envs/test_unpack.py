"""Unpacking: once per node, whole or not at all, and a clear word for whatever is wrong."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import pickle
import platform
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard
from tests.unit.envs.conftest import write_tar

from graphvine.envs import cache as caches
from graphvine.envs import errors
from graphvine.envs.metadata import MEMBER, Metadata, encode, this_platform
from graphvine.envs.unpack import acquire, hold, inspect, unpack, unpack_to

NOISE = random.Random(1).randbytes(300_000)


def left(cache: Path) -> list[str]:
    return sorted(os.listdir(cache))


def describe(**fields) -> bytes:
    return encode(Metadata(**{"platform": this_platform(), "unpacked_bytes": 0, "files": 0, **fields}))


def to_zstd(path: str) -> str:
    packed = Path(path).with_suffix(".zst")
    packed.write_bytes(
        zstandard.ZstdCompressor(write_checksum=True).compress(gzip.decompress(Path(path).read_bytes()))
    )
    return str(packed)


def test_an_environment_is_unpacked_once_and_found_again(tmp_path, make_archive):
    archive = make_archive({"lib/module.py": b"x = 1\n", "share/data": NOISE})
    cache = tmp_path / "cache"
    seen: list[int] = []
    prefix = unpack(archive, "one", str(cache), progress=lambda done, size: seen.append(done))
    assert Path(prefix, "share/data").read_bytes() == NOISE
    assert seen
    assert left(cache) == ["one", "one.json", "one.lock", "one.use"]
    os.unlink(archive)
    assert unpack(archive, "one", str(cache)) == prefix


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_is_told_by_its_bytes(tmp_path, make_archive, mode):
    archive = make_archive({"data": NOISE}, mode, "archive")
    assert Path(unpack(archive, "one", str(tmp_path / "cache")), "data").read_bytes() == NOISE


def test_zstd_in_several_frames(tmp_path, make_archive):
    plain = Path(make_archive({"data": NOISE}, "w", "plain.tar")).read_bytes()
    archive = tmp_path / "several.zst"
    compressor = zstandard.ZstdCompressor()
    archive.write_bytes(
        b"".join(compressor.compress(plain[at : at + 70_000]) for at in range(0, len(plain), 70_000))
    )
    assert Path(unpack(str(archive), "one", str(tmp_path / "cache")), "data").read_bytes() == NOISE


def test_an_environment_below_one_directory(tmp_path):
    archive = write_tar(tmp_path / "a", {"myenv/bin/python": sys.executable, "myenv/lib/x": b"x"})
    prefix = unpack(archive, "one", str(tmp_path / "cache"))
    assert prefix.endswith("/one/myenv")
    assert hold("one", str(tmp_path / "cache")).prefix == prefix


def test_the_cache_is_told_by_the_environment(tmp_path, make_archive, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert unpack(make_archive(), "one").startswith(str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GRAPHVINE_CACHE_MB", "plenty")
    with pytest.raises(errors.CacheError, match="GRAPHVINE_CACHE_MB=plenty"):
        unpack(make_archive(), "one")


def test_modes_links_and_names_that_come_twice(tmp_path, make_archive):
    twin = tarfile.TarInfo("lib/twin")
    twin.type, twin.linkname = tarfile.LNKTYPE, "lib/file"
    plain = tarfile.TarInfo("lib/plain")
    plain.mode = 0o644
    archive = make_archive({"lib/file": b"content", "lib/twin": twin, "lib/link": "file", "lib/plain": plain})
    with tarfile.open(tmp_path / "twice", "w") as tar:
        with tarfile.open(archive) as old:
            for member in old:
                tar.addfile(member, old.extractfile(member) if member.isreg() else None)
        again = tarfile.TarInfo("lib/plain")
        tar.addfile(again)
    prefix = Path(unpack(str(tmp_path / "twice"), "one", str(tmp_path / "cache")))
    assert (prefix / "lib/twin").samefile(prefix / "lib/file")
    assert (prefix / "lib/link").readlink() == Path("file")
    assert os.access(prefix / "lib/file", os.X_OK)
    assert not (prefix / "lib/plain").stat().st_mode & 0o111


def test_times_of_foreign_files_are_kept_for_their_bytecode(tmp_path):
    info = tarfile.TarInfo("lib/module.py")
    info.mtime = 1_500_000_000
    archive = write_tar(tmp_path / "a", {"bin/python": sys.executable, "lib/module.py": info})
    prefix = unpack(archive, "one", str(tmp_path / "cache"))
    assert os.stat(f"{prefix}/lib/module.py").st_mtime == 1_500_000_000


# -- damage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zstd", [False, True], ids=["gzip", "zstd"])
def test_a_damaged_archive_is_said_to_be_and_leaves_nothing(tmp_path, make_archive, zstd):
    archive = make_archive({"data": NOISE, "more": NOISE[::-1]})
    if zstd:
        archive = to_zstd(archive)
    whole = Path(archive).read_bytes()
    cache = tmp_path / "cache"
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    for wrong in (
        whole[: len(whole) // 2],
        whole[:-1],
        whole[:-9],
        bytes(broken),
        whole[:100],
        b"",
        b"garbage" * 99,
    ):
        Path(archive).write_bytes(wrong)
        with pytest.raises(errors.DamagedArchiveError, match=r"archive|zstd"):
            unpack(archive, "one", str(cache))
        assert left(cache) == []
    Path(archive).write_bytes(whole)
    assert unpack(archive, "one", str(cache))


def test_a_tar_file_that_ends_between_two_files_is_damaged(tmp_path, make_archive):
    archive = make_archive({"data": NOISE}, "w", "a.tar")
    with tarfile.open(archive) as tar:
        end = tar.getmember("data").offset
    Path(archive).write_bytes(Path(archive).read_bytes()[:end])
    with pytest.raises(errors.DamagedArchiveError, match="too early"):
        unpack(archive, "one", str(tmp_path / "cache"))


def test_an_unreadable_header_is_not_taken_for_the_end(tmp_path, make_archive):
    archive = make_archive({"first": b"1", "second": b"2"}, "w", "a.tar")
    with tarfile.open(archive) as tar:
        at = tar.getmember("first").offset
    data = bytearray(Path(archive).read_bytes())
    data[at : at + 200] = b"\xff" * 200
    Path(archive).write_bytes(data)
    with pytest.raises(errors.DamagedArchiveError, match="not readable"):
        unpack(archive, "one", str(tmp_path / "cache"))


def test_files_that_its_own_description_counts_must_be_there(tmp_path, make_archive):
    archive = write_tar(tmp_path / "a", {MEMBER: describe(files=7), "bin/python": sys.executable})
    with pytest.raises(errors.DamagedArchiveError, match="files are missing"):
        unpack(archive, "one", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["../evil", "/evil", "lib/../../evil"])
def test_names_that_lead_out_are_refused(tmp_path, make_archive, name):
    with pytest.raises(errors.UnsafeArchiveError, match="outside"):
        unpack(make_archive({name: b"evil"}), "one", str(tmp_path / "cache"))
    assert not list(tmp_path.rglob("evil"))


def test_nothing_is_written_through_a_link(tmp_path, make_archive):
    (tmp_path / "precious").mkdir()
    for inner in (b"evil", "/etc/passwd"):
        archive = make_archive({"lib/out": str(tmp_path / "precious"), "lib/out/evil": inner})
        with pytest.raises(errors.DamagedArchiveError):
            unpack(archive, "one", str(tmp_path / "cache"))
    assert left(tmp_path / "precious") == []


def test_a_hard_link_to_a_file_outside_and_a_device_are_refused(tmp_path, make_archive):
    link = tarfile.TarInfo("lib/link")
    link.type, link.linkname = tarfile.LNKTYPE, "/etc/passwd"
    device = tarfile.TarInfo("lib/null")
    device.type = tarfile.CHRTYPE
    missing = tarfile.TarInfo("lib/missing")
    missing.type, missing.linkname = tarfile.LNKTYPE, "lib/none"
    for info in (link, device, missing):
        with pytest.raises(errors.DamagedArchiveError):
            unpack(make_archive({info.name: info}), "one", str(tmp_path / "cache"))


# -- the wrong environment --------------------------------------------------------------------------------


def test_no_python_inside(tmp_path):
    archive = write_tar(tmp_path / "a", {"lib/x": b"x"})
    with pytest.raises(errors.NoPythonError, match=r"no bin/python .* graphvine env pack"):
        unpack(archive, "one", str(tmp_path / "cache"))
    dangling = write_tar(tmp_path / "b", {"bin/python": "/nowhere/python3"})
    with pytest.raises(errors.NoPythonError, match="not self-contained"):
        unpack(dangling, "one", str(tmp_path / "cache"))
    failing = write_tar(tmp_path / "c", {"bin/python": b"#!/bin/sh\necho no libfoo.so >&2; exit 127\n"})
    with pytest.raises(errors.NoPythonError, match=r"does not start: no libfoo\.so"):
        unpack(failing, "one", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []


def test_another_platform_is_told_before_anything_is_unpacked(tmp_path):
    archive = write_tar(
        tmp_path / "a", {MEMBER: describe(platform="linux-riscv64"), "bin/python": sys.executable}
    )
    with pytest.raises(errors.WrongPlatformError, match=f"linux-riscv64; this machine is {this_platform()}"):
        unpack(archive, "one", str(tmp_path / "cache"))


def test_another_platform_is_told_of_a_foreign_archive(tmp_path):
    not_for_us = bytearray(Path(os.path.realpath(sys.executable)).read_bytes()[:4096])
    not_for_us[18:20] = (0xABCD).to_bytes(2, "little")  # the kind of machine, in an ELF header
    archive = write_tar(tmp_path / "a", {"bin/python": bytes(not_for_us)})
    with pytest.raises(errors.WrongPlatformError, match="another kind of machine"):
        unpack(archive, "one", str(tmp_path / "cache"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_newer_c_library_is_asked_for(tmp_path):
    archive = write_tar(tmp_path / "a", {MEMBER: describe(glibc="99.1"), "bin/python": sys.executable})
    with pytest.raises(errors.WrongPlatformError, match=r"glibc 99\.1 or newer; this machine has"):
        unpack(archive, "one", str(tmp_path / "cache"))


def test_another_minor_version_of_python(tmp_path, make_archive):
    cache = str(tmp_path / "cache")
    told = write_tar(tmp_path / "a", {MEMBER: describe(python="3.7.1"), "bin/python": sys.executable})
    with pytest.raises(errors.WrongPythonError, match=r"Python 3\.7\.1, but Python 3\.12 is needed"):
        unpack(told, "one", cache, python="3.12.4")
    with pytest.raises(errors.WrongPythonError, match=r"Python 3\.2 is needed"):
        unpack(make_archive(), "two", cache, python="3.2")
    assert left(Path(cache)) == []
    here = platform.python_version()
    assert unpack(make_archive(), "two", cache, python=".".join([*here.split(".")[:2], "99"]))
    with pytest.raises(errors.WrongPythonError):
        unpack(make_archive(), "two", cache, python="3.2")


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_errors_travel(kind):
    again = pickle.loads(pickle.dumps(kind("what to do")))
    assert type(again) is kind
    assert str(again) == "what to do"


# -- several at once, and what is left behind -------------------------------------------------------------

_UNPACK = "import sys\nfrom graphvine.envs.unpack import unpack\nprint(unpack(*sys.argv[1:]))"


def test_processes_that_come_at_once_unpack_once(tmp_path):
    # The first one to unpack takes the archive away with it: whoever unpacked as well would fail.
    archive, cache = str(tmp_path / "fifo"), str(tmp_path / "cache")
    count = tmp_path / "count"
    python = f'#!/bin/sh\necho started >> {count}\nexec {sys.executable} "$@"\n'.encode()
    write_tar(Path(archive), {"bin/python": python, "data": NOISE})
    command = [sys.executable, "-c", _UNPACK, archive, "one", cache]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {worker.communicate()[0].strip() for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 4
    assert said == {str(tmp_path / "cache" / "one")}
    assert count.read_text().splitlines() == ["started"]


def test_what_a_killed_process_left_is_no_environment(tmp_path, make_archive):
    cache = tmp_path / "cache"
    for leftover in ("one.making/lib", "one/lib", "other.making/lib", "other.removing/lib"):
        (cache / leftover).mkdir(parents=True)
        (cache / leftover / "half").write_bytes(b"half")
    for name in ("one.lock", "other.lock"):
        (cache / name).touch()
    (cache / "other.json").write_bytes(b"{")
    assert hold("one", str(cache)) is None
    prefix = unpack(make_archive({"lib/whole": b""}), "one", str(cache))
    assert os.listdir(f"{prefix}/lib") == ["whole"]
    assert left(cache) == ["one", "one.json", "one.lock", "one.use"]


def test_one_that_lost_files_when_the_machine_stopped_is_unpacked_again(tmp_path, make_archive):
    cache, archive = tmp_path / "cache", make_archive({"data": NOISE})
    prefix = unpack(archive, "one", str(cache))

    def reboot() -> None:
        marker = msgspec.json.decode((cache / "one.json").read_bytes())
        marker["boot"] = "the one before"
        (cache / "one.json").write_bytes(msgspec.json.encode(marker))

    reboot()
    inode = os.stat(prefix).st_ino
    unpack(archive, "one", str(cache))
    assert os.stat(prefix).st_ino == inode
    reboot()
    os.truncate(f"{prefix}/data", 0)
    unpack(archive, "one", str(cache))
    assert Path(prefix, "data").read_bytes() == NOISE


def test_above_the_cap_the_least_recently_used_one_goes(tmp_path, make_archive):
    cache, archive = str(tmp_path / "cache"), make_archive({"data": NOISE})
    cap = 3 * len(NOISE) + 1000
    for age, name in ((30, "old"), (20, "older-but-used-again"), (10, "held")):
        unpack(archive, name, cache, cap_bytes=cap)
        os.utime(f"{cache}/{name}.lock", (1e9 - age, 1e9 - age))
    unpack(archive, "older-but-used-again", cache)
    with acquire(archive, "held", cache) as held:
        os.utime(f"{cache}/held.lock", (1, 1))
        unpack(archive, "new", cache, cap_bytes=cap)
        assert [place.name for place in caches.places(cache)] == ["held", "new", "older-but-used-again"]
        unpack(archive, "newest", cache, cap_bytes=1)
        assert [place.name for place in caches.places(cache)] == ["held", "newest"]
        assert Path(held.prefix, "data").exists()
    unpack(archive, "last", cache, cap_bytes=1)
    assert [place.name for place in caches.places(cache)] == ["last"]


@pytest.mark.timeout(60)
def test_who_came_too_late_to_make_it_does_not_wait_for_those_who_use_it(tmp_path, make_archive):
    cache, archive = str(tmp_path / "cache"), make_archive({"data": NOISE})
    place = caches.Place(cache, "one")
    assert hold("one", cache) is None  # two find nothing, one of them makes it, and works in it
    with acquire(archive, "one", cache) as held:
        caches.fill(place, pytest.fail)  # here the other was kept waiting until that was over
        with acquire(archive, "one", cache) as other:
            assert other.prefix == held.prefix


@pytest.mark.timeout(60)
def test_many_that_come_at_once_all_get_to_work(tmp_path, make_archive):
    """None of them ends before all have begun."""
    cache, archive = str(tmp_path / "cache"), make_archive({"data": NOISE})
    code = (
        "import sys\nfrom graphvine.envs.unpack import acquire, hold\n"
        "archive, name, cache = sys.argv[1:]\n"
        "held = hold(name, cache) or acquire(archive, name, cache)\n"
        "print(held.prefix, flush=True)\nsys.stdin.read()\n"
    )
    for name in ("one", "two", "three"):
        command = [sys.executable, "-c", code, archive, name, cache]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(6)
        ]
        assert {worker.stdout.readline() for worker in workers} == {f"{cache}/{name}\n"}
        for worker in workers:
            worker.communicate()


@pytest.mark.timeout(60)
def test_one_whose_files_somebody_removed_is_unpacked_again(tmp_path, make_archive):
    cache, archive = str(tmp_path / "cache"), make_archive({"data": NOISE})
    shutil.rmtree(unpack(archive, "one", cache))
    assert Path(unpack(archive, "one", cache), "data").read_bytes() == NOISE


def test_a_process_that_inherits_a_hold_keeps_the_environment(tmp_path, make_archive):
    cache, archive = str(tmp_path / "cache"), make_archive({"data": NOISE})
    with acquire(archive, "held", cache) as held:
        keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()])
    unpack(archive, "new", cache, cap_bytes=1)
    assert hold("held", cache) is not None
    keeper.communicate()
    unpack(archive, "newest", cache, cap_bytes=1)
    assert hold("held", cache) is None


def test_a_lock_file_that_is_removed_while_one_waits_for_it_is_none(tmp_path):
    place = caches.Place(str(tmp_path), "one")
    first = caches.lock(place, exclusive=True)
    waiter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys\nfrom graphvine.envs.cache import Place, lock\n"
            "place = Place(sys.argv[1], 'one')\n"
            "print('ready', flush=True)\nheld = lock(place, exclusive=True)\n"
            "print(os.path.samestat(os.fstat(held), os.stat(place.lock)))",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiter.stdout.readline() == "ready\n"
    os.unlink(place.lock)
    os.close(first)
    assert waiter.communicate()[0] == "True\n"


def test_a_failed_write_for_lack_of_room_says_so(tmp_path, make_archive, small_disk):
    archive = make_archive({"data": NOISE * 10})
    with pytest.raises(errors.NoSpaceError, match=r"no space .* GRAPHVINE_CACHE_DIR"):
        unpack(archive, "one", str(small_disk / "cache"))
    assert left(small_disk / "cache") == []
    described = write_tar(tmp_path / "b", {MEMBER: describe(unpacked_bytes=10**13)})
    with pytest.raises(errors.NoSpaceError, match="takes 10,000,000 MB"):
        unpack(described, "one", str(small_disk / "cache"))


def test_unused_environments_make_room_on_a_full_disk(make_archive, small_disk):
    archive, cache = make_archive({"data": NOISE * 4}), str(small_disk / "cache")
    unpack(archive, "one", cache)
    assert unpack(archive, "two", cache)
    assert hold("one", cache) is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_cache_that_can_not_be_written_to(tmp_path, make_archive):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(errors.CacheError, match="GRAPHVINE_CACHE_DIR"):
        unpack(make_archive(), "one", str(tmp_path / "cache"))


def test_a_cache_that_is_a_file_and_a_name_that_is_a_path(tmp_path, make_archive):
    (tmp_path / "file").touch()
    with pytest.raises(errors.CacheError, match="GRAPHVINE_CACHE_DIR"):
        unpack(make_archive(), "one", str(tmp_path / "file" / "cache"))
    with pytest.raises(errors.CacheError, match="name of an environment"):
        unpack(make_archive(), "../one", str(tmp_path / "cache"))


def test_a_file_system_without_locks(tmp_path, make_archive, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(errors.CacheError, match="local disk"):
        unpack(make_archive(), "one", str(tmp_path / "cache"))


def test_a_missing_archive_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        unpack(str(tmp_path / "none.tar.zst"), "one", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []


# -- a directory of one's own, and looking inside ---------------------------------------------------------


def test_unpacking_to_a_directory(tmp_path, make_archive):
    archive = make_archive({"data": NOISE})
    prefix = unpack_to(archive, str(tmp_path / "deep" / "here"))
    assert Path(prefix, "data").read_bytes() == NOISE
    with pytest.raises(errors.CacheError, match="not empty"):
        unpack_to(archive, prefix)


def test_a_directory_is_as_before_when_unpacking_fails(tmp_path):
    archive = write_tar(tmp_path / "a", {"lib/x": b"x", "y": b"y"})
    (tmp_path / "there").mkdir()
    for target in ("there", "new"):
        with pytest.raises(errors.NoPythonError):
            unpack_to(archive, str(tmp_path / target))
    assert left(tmp_path / "there") == []
    assert not (tmp_path / "new").exists()


def test_inspecting_one_of_ours_reads_its_beginning_only(tmp_path):
    wanted = Metadata(kind="venv", python="3.11.7", platform="linux-x86_64", packages=(("numpy", "2.0"),))
    archive = Path(write_tar(tmp_path / "a", {MEMBER: encode(wanted), "data": NOISE}))
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert inspect(str(archive)) == wanted


def test_inspecting_what_others_made(tmp_path):
    archive = write_tar(
        tmp_path / "a",
        {
            "conda-meta/python-3.11.4-hab00c5b_0_cpython.json": b"{}",
            "conda-meta/scikit-learn-1.3.0-py311_0.json": b"{}",
            "lib/python3.11/os.py": b"",
            "lib/python3.11/site-packages/my_package-0.1.dist-info/METADATA": b"",
        },
    )
    found = inspect(archive)
    assert (found.kind, found.python, found.files) == ("conda", "3.11.4", 4)
    assert found.packages == (("my-package", "0.1"), ("python", "3.11.4"), ("scikit-learn", "1.3.0"))


def test_inspecting_a_description_that_is_none(tmp_path):
    with pytest.raises(errors.DamagedArchiveError, match="description"):
        inspect(write_tar(tmp_path / "a", {MEMBER: b"{nonsense"}))


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path, make_archive):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(errors.CacheError, match="written by others"):
        unpack(make_archive(), "env", str(cache))
    cache.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(cache, 1000, 1000)
        with pytest.raises(errors.CacheError, match="another user"):
            unpack(make_archive(), "env", str(cache))
