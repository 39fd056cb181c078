"""A local server for the tests that download."""

import pytest

from tests.file_server import serve


@pytest.fixture
def server(monkeypatch):
    """The server; gdown does not wait between its tries."""
    monkeypatch.setattr("random.uniform", lambda a, b: 0.0)
    with serve() as running:
        yield running
