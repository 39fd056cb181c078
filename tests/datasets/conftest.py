"""A local server for the tests that download."""

import pytest

from dassl.utils import download
from tests.file_server import serve


@pytest.fixture
def server(monkeypatch):
    """The server; downloads do not wait between retries."""
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0))
    with serve() as running:
        yield running
