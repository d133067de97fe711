"""Encrypted links, with real sockets on both sides."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from graphvine.protocol import tls

SECRET = "a secret"
Wrap = Callable[[socket.socket], ssl.SSLSocket]


def wrapped(secret: str, role: tls.Role) -> Wrap:
    return lambda link: tls.wrap(link, secret, role)


def meet(client: Wrap, server: Wrap) -> list[object]:
    """What both sides of one link make of it: an ssl.SSLSocket after its handshake, or the error."""
    near, far = socket.socketpair()
    outcomes: list[object] = [None, None]

    def run(at: int, link: socket.socket, wrap: Wrap) -> None:
        link.settimeout(10)
        encrypted = wrap(link)
        try:
            encrypted.do_handshake()
            # With TLS 1.3 a client hears only now what the server thinks of it.
            encrypted.sendall(b"x")
            assert encrypted.recv(1) == b"x"
        except OSError as error:
            encrypted.close()
            outcomes[at] = error
        else:
            outcomes[at] = encrypted

    thread = threading.Thread(target=run, args=(0, near, client))
    thread.start()
    run(1, far, server)
    thread.join()
    return outcomes


def test_both_know_the_secret() -> None:
    near, far = meet(wrapped(SECRET, "client"), wrapped(SECRET, "server"))
    assert isinstance(near, tls.TlsSocket)
    assert isinstance(far, tls.TlsSocket)
    assert near.version() == far.version() == "TLSv1.3"
    tls.check_peer(near, SECRET)
    with pytest.raises(ssl.SSLError, match="another certificate"):
        tls.check_peer(far, "another")
    near.close()
    far.close()


def without_certificate(link: socket.socket) -> ssl.SSLSocket:
    """A client that asks for nothing and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(link, do_handshake_on_connect=False)


def of_older_version(link: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(link, do_handshake_on_connect=False)


@pytest.mark.parametrize(
    "client",
    [wrapped("another", "client"), without_certificate, of_older_version],
    ids=["of another secret", "without one", "of an older version"],
)
def test_a_client_that_cannot_show_the_certificate_is_refused(client: Wrap) -> None:
    near, far = meet(client, wrapped(SECRET, "server"))
    assert isinstance(near, OSError)
    assert isinstance(far, ssl.SSLError)


def test_a_server_that_has_another_secret_is_refused() -> None:
    near, far = meet(wrapped(SECRET, "client"), wrapped("another", "server"))
    assert isinstance(near, ssl.SSLCertVerificationError)
    assert isinstance(far, OSError)


def test_the_certificate_depends_on_the_secret_alone() -> None:
    made = tls.certificate("one")
    tls.certificate.cache_clear()
    assert tls.certificate("one") == made
    assert tls.certificate("two") != made


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_openssl_finds_the_certificate_in_order(tmp_path: Path) -> None:
    (tmp_path / "der").write_bytes(tls.certificate(SECRET))
    pem = str(tmp_path / "pem")
    convert = ["openssl", "x509", "-inform", "der", "-in", str(tmp_path / "der"), "-out", pem]
    subprocess.run(convert, check=True)
    verify = ["openssl", "verify", "-check_ss_sig", "-x509_strict", "-CAfile", pem, pem]
    subprocess.run(verify, check=True, capture_output=True)


def test_a_link_that_is_shut_never_goes_on_unencrypted() -> None:
    near, far = meet(wrapped(SECRET, "client"), wrapped(SECRET, "server"))
    assert isinstance(near, tls.TlsSocket)
    assert isinstance(far, tls.TlsSocket)
    far.sendall(b"secret words")
    near.shutdown(socket.SHUT_RDWR)
    assert near.version() == "TLSv1.3"
    assert near.recv(100) in (b"", b"secret words")
    near.close()
    far.close()
