"""Archives of miniature datasets, and a dataset's sources on a local server."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

from tests.file_server import FileServer


def tar(folder: Path, inside: str = "") -> bytes:
    """Return a .tar.gz of the folder's content, below `inside`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.add(path, f"{inside}/{path.relative_to(folder)}" if inside else str(path.relative_to(folder)))
    return buffer.getvalue()


def plain_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def use_sources(monkeypatch, dataset, server: FileServer) -> None:
    """Point the dataset's sources to the server, with the checksums of its files."""

    def here(source):
        content = server.files.get(f"/{source.file}", b"")
        checksum = f"md5:{hashlib.md5(content).hexdigest()}" if source.checksum else ""
        return replace(source, urls=(f"{server.address}/{source.file}",) if source.urls else (), checksum=checksum)

    monkeypatch.setattr(dataset, "sources", tuple(here(source) for source in dataset.sources))
