"""The engine minicrypto in a process of its own: handshakes in both roles, and no OpenSSL in its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.tls.pair import NAME, TIME, authority, leaf

SCRIPT = """
import sys
# What CPython has of OpenSSL; asyncio, hashlib and hmac do without.
sys.modules["_ssl"] = sys.modules["_hashlib"] = None
import os, socket, threading
from datetime import datetime
from pathlib import Path
import tcpls, tcpls.cli.main
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.engines.libraries import library
from tcpls.tls.record import RecordOpener, RecordSealer

folder, name, time = Path(sys.argv[1]), sys.argv[2], datetime.fromisoformat(sys.argv[3])
mini = library("minicrypto")
server_config = ServerConfig((mini.load_identity(folder / "chain.pem", folder / "key.pem"),), engine=mini.engine)
client_config = ClientConfig(name, mini.load_trust(folder / "ca.pem"), engine=mini.engine)


def shake(sock, connection):
    while True:
        sock.sendall(connection.data_to_send())
        if connection.handshake_complete:
            return connection.established()
        connection.receive_data(sock.recv(65536))


def serve(listener):
    sock, _ = listener.accept()
    with sock:
        end = shake(sock, ServerConnection(server_config, random=os.urandom))
        sealer = RecordSealer(mini.engine.aead, end.write_secret.keys(end.write_sequence))
        sealer.put(23, b"hello")
        sock.sendall(sealer.pending)


with socket.create_server(("127.0.0.1", 0)) as listener:
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    with socket.create_connection(listener.getsockname(), timeout=20) as sock:
        end = shake(sock, ClientConnection(client_config, random=os.urandom, time=time))
        opener = RecordOpener(mini.engine.aead, end.read_secret.keys(end.read_sequence), mini.engine.invalid_tag)
        opener.feed(end.unread)
        while (record := opener.next_record()) is None:
            opener.feed(sock.recv(65536))
        print(record[0], bytes(record[1]).decode(), end.group)
    thread.join(20)
print(Path("/proc/self/maps").read_text())
"""


def test_a_process_without_openssl(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(leaf().pem)
    (tmp_path / "key.pem").write_bytes(leaf().key_pem)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), NAME, TIME.isoformat()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said, maps = done.stdout.split("\n", 1)
    assert said == "23 hello X25519MLKEM768"
    # The engine's own libraries are there, so that the next line cannot pass for want of anything.
    assert "/Crypto/" in maps
    for library in ("libssl", "libcrypto", "_rust", "_hashlib", "_ssl"):
        assert library not in maps
