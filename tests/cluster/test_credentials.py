"""Proxies and tokens in real jobs: they arrive, for their owner alone, are renewed, and don't stay."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dask
import pytest
from dask import delayed
from tests.cluster.graphs import credentials
from tests.cluster.htcondor_pool import Pool
from tests.cluster.slurm_pool import SlurmPool, await_true
from tests.cluster.test_htcondor_cluster import run
from tests.cluster.test_slurm_workers import SOON, await_connected

import graphvine as gv
from graphvine.deploy.cluster import SlurmCluster


def make_proxy(path: Path, subject: str) -> str:
    """What stands for a proxy: a certificate that signed itself, and its key; its text."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    made = path.with_name("made")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={subject}", "-keyout", f"{made}.key", "-out", f"{made}.pem"]
    subprocess.run(command, check=True, capture_output=True)
    text = Path(f"{made}.pem").read_text() + Path(f"{made}.key").read_text()
    new = path.with_name("new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)
    return text


def left(*places: Path) -> list[Path]:
    return [
        path for place in places for path in place.rglob("*") if path.name in ("proxy", "token", "x509up")
    ]


def test_in_slurm(slurm: SlurmPool, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    proxy, token = tmp_path / "x509up", tmp_path / "bearer"
    text = make_proxy(proxy, "first")
    token.write_text("a token")
    home = tmp_path / "jobs"
    with SlurmCluster(
        cores=1,
        memory="300MB",
        environment=str(packed),
        proxy=str(proxy),
        token=str(token),
        scratch_dir=home,
        limits=SOON,
    ) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster) as manager:
            await_connected(cluster, 1)

            def seen() -> Any:
                (told,) = dask.compute(delayed(credentials)(os.urandom(4)), scheduler=manager.get)
                return told

            assert seen() == [["0o600", os.getuid(), text], ["0o600", os.getuid(), "a token"]]
            renewed = make_proxy(proxy, "second")
            token.write_text("a newer token")
            await_true(lambda: [told[2] for told in seen()] == [renewed, "a newer token"], "both are renewed")
    await_true(lambda: not slurm.jobs(), "the job is gone")
    assert left(home, tmp_path / "scratch") == []


IN_HTCONDOR = """
proxy, token, new = (os.environ[name] for name in ("PROXY", "TOKEN", "NEW"))

def credentials(_):
    import os
    told = []
    for name in ("X509_USER_PROXY", "BEARER_TOKEN_FILE"):
        with open(os.environ[name]) as file:
            status = os.fstat(file.fileno())
            told.append([oct(status.st_mode & 0o777), status.st_uid, file.read(), os.environ[name]])
    return told

with gv.HTCondorCluster(
    cores=1, memory="300MB", disk="1GB", environment=ARCHIVE, proxy=proxy, token=token, limits=SOON
) as cluster:
    cluster.scale(1)
    with gv.Manager(cluster=cluster) as m:
        wait_for(cluster, connected(1))
        seen = lambda: dask.compute(delayed(credentials)(os.urandom(4)), scheduler=m.get)[0]
        first = seen()
        with open(proxy) as file:
            old = file.read()
        os.replace(new, proxy)
        with open(proxy) as file:
            renewed = file.read()
        end = time.monotonic() + 60
        while (last := seen()[0][2]) == first[0][2] and time.monotonic() < end:
            time.sleep(0.2)
tell(first=first, old=old, last=last, renewed=renewed)
"""


def subject_of(proxy: str) -> str:
    """Of the last certificate: HTCondor may hand on a proxy of the proxy, which comes first."""
    certificate = proxy[proxy.rindex("-----BEGIN CERTIFICATE") :]
    command = ["openssl", "x509", "-noout", "-subject"]
    return subprocess.run(command, input=certificate, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_in_htcondor(htcondor: Pool) -> None:
    place = htcondor.home / "credentials"
    place.mkdir()
    old = make_proxy(place / "a_proxy", "first")
    new = make_proxy(place / "a_newer_proxy", "second")
    (place / "a_token").write_text("a token")
    (place / "a_token").chmod(0o644)  # as careless as can be
    htcondor.give(place)
    told = run(
        htcondor,
        IN_HTCONDOR,
        PROXY=str(place / "a_proxy"),
        NEW=str(place / "a_newer_proxy"),
        TOKEN=str(place / "a_token"),
    )
    proxy, token = told["first"]
    assert (proxy[:2], token[:3]) == (
        ["0o600", htcondor.user.pw_uid],
        ["0o600", htcondor.user.pw_uid, "a token"],
    )
    assert subject_of(proxy[2]) == subject_of(old)
    assert subject_of(told["last"]) == subject_of(new) != subject_of(old)
    execute = str(htcondor.home / "execute")
    assert proxy[3].startswith(execute)
    assert token[3].startswith(execute)
    assert not Path(proxy[3]).exists()
    assert not Path(token[3]).exists()
    assert left(htcondor.home / "execute", htcondor.home / ".local") == []
