"""A peer over tlslite-ng, for certificate compression, which Debian's OpenSSL and GnuTLS and Go do not have.

`tlslite_peer.py server|client PORT CERTIFICATE KEY ALGORITHM` makes one connection, shows its certificate and wants to
see the other's, says how both were compressed ("server zlib client zlib"), and sends back one line or sends one.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey

role, port, certificate, key_file, algorithm = sys.argv[1:]
chain = X509CertChain()
chain.parsePemList(Path(certificate).read_text())
key = parsePEMKey(Path(key_file).read_text(), private=True)
settings = HandshakeSettings()
settings.minVersion = (3, 4)
settings.certificate_compression_send = [algorithm]
settings.certificate_compression_receive = [algorithm]

if role == "server":
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("listening", flush=True)
    sock, _ = listener.accept()
else:
    sock = socket.create_connection(("127.0.0.1", int(port)))
sock.settimeout(20)
connection = TLSConnection(sock)
if role == "server":
    connection.handshakeServer(certChain=chain, privateKey=key, reqCert=True, settings=settings)
    connection.write(connection.read(min=6, max=6))
else:
    connection.handshakeClientCert(chain, key, settings=settings, serverName="server.example")
    connection.write(b"hello\n")
    connection.read(min=6, max=6)
how = connection.server_cert_compression_algo, connection.client_cert_compression_algo
print("server {} client {}".format(*how), flush=True)
connection.close()
