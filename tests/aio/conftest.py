"""The library over real sockets on loopback. Nothing here waits for a clock: tests wait for what the other end does."""

from __future__ import annotations

import pytest
import trustme

from tests.aio.ends import Ends


@pytest.fixture(scope="session")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    folder = tmp_path_factory.mktemp("identity")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    made = Ends(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made
