"""Finding weights: the cache, a server that misbehaves, the hub's copy, two processes, no network."""

import hashlib
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import clip
from clip import releases, search
from dassl.utils import download
from tests.file_server import FileServer, serve
from tests.paths import ROOT

TENSORS = {"text_projection": torch.arange(60_000.0).view(300, 200), "logit_scale": torch.tensor(2.0)}
HUB_PATH = "/lab/tiny_clip/resolve/main/open_clip_model.safetensors"


def archive() -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    return buffer.getvalue()


CONTENT = archive()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/{SHA256}/Tiny.pt"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """A server in place of OpenAI's address and the hub, and one released model, "Tiny"."""
    from huggingface_hub import constants

    with serve() as server:
        server.files[PATH] = CONTENT
        monkeypatch.setattr(releases, "OPENAI_ADDRESS", server.address)
        monkeypatch.setattr(search, "RELEASES", {"Tiny": releases.Release("Tiny.pt", SHA256, "lab/tiny_clip")})
        monkeypatch.setitem(releases.MODELS, "Tiny", server.address + PATH)
        monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def find(root: Path) -> Path:
    return search.find(search.MODELS["Tiny"], str(root))


def assert_whole(path: Path, root: Path) -> None:
    assert path == root / "Tiny.pt"
    assert path.read_bytes() == CONTENT
    assert not list(root.glob("*.part"))


def test_download_once_then_from_the_cache(server: FileServer, tmp_path: Path) -> None:
    assert_whole(find(tmp_path / "deep" / "cache"), tmp_path / "deep" / "cache")
    assert_whole(find(tmp_path / "deep" / "cache"), tmp_path / "deep" / "cache")
    assert server.gets == [(PATH, None)]


def test_load_by_name_and_as_plug_ins_do(server: FileServer, tmp_path: Path) -> None:
    found = search.load_state_dict("Tiny", str(tmp_path))
    assert found.keys() == TENSORS.keys()
    path = clip._download(clip._MODELS["Tiny"], str(tmp_path))
    assert isinstance(path, str)
    with warnings.catch_warnings(), pytest.raises(RuntimeError):  # tried first, for OpenAI's archives
        warnings.simplefilter("ignore")
        torch.jit.load(path, map_location="cpu")
    assert torch.load(path, map_location="cpu").keys() == TENSORS.keys()


def test_dropped_connections_are_resumed(server: FileServer, tmp_path: Path) -> None:
    """More drops than retries: the count restarts whenever bytes were received."""
    server.drop_after = [50_000, 10_000, 0, 30_000, 1]
    assert_whole(find(tmp_path), tmp_path)
    offsets = [None, 50_000, 60_000, 60_000, 90_000, 90_001]
    assert server.gets == [(PATH, offset and f"bytes={offset}-") for offset in offsets]


def test_a_later_call_continues_an_earlier_one(server: FileServer, tmp_path: Path) -> None:
    server.drop_after = [70_000, 0, 0]
    with pytest.raises(FileNotFoundError, match=r"the connection closed after 70,000 of [\d,]+ bytes"):
        find(tmp_path)
    server.gets.clear()
    assert_whole(find(tmp_path), tmp_path)
    assert server.gets == [(PATH, "bytes=70000-")]


def test_server_without_ranges_starts_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.drop_after = [50_000]
    assert_whole(find(tmp_path), tmp_path)
    assert len(server.gets) == 2


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"x" * 1000], ids=["whole", "too long", "foreign"])
def test_parts_left_behind(server: FileServer, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "Tiny.pt.part").write_bytes(part)
    assert_whole(find(tmp_path), tmp_path)


def test_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.fail_with = [503, 429]
    assert_whole(find(tmp_path), tmp_path)
    assert len(server.gets) == 3


def test_wrong_checksum(server: FileServer, tmp_path: Path) -> None:
    server.files[PATH] = b"something else"
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(
        FileNotFoundError, match=rf"the downloaded file \(14 bytes\) has sha256 {found}, expected {SHA256}"
    ):
        find(tmp_path)
    assert not (tmp_path / "Tiny.pt").exists() and not list(tmp_path.glob("*.part"))


def test_cached_file_that_was_cut_short_is_replaced(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "Tiny.pt").write_bytes(CONTENT[:1000])
    assert_whole(find(tmp_path), tmp_path)


def test_checksum_is_remembered_until_the_file_changes(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Tiny.pt").write_bytes(CONTENT)
    find(tmp_path)
    checked: list[Path] = []
    monkeypatch.setattr(search, "file_checksum", lambda path, algorithm: checked.append(path) or SHA256)
    find(tmp_path)
    assert checked == []
    os.utime(tmp_path / "Tiny.pt", ns=(0, 0))
    find(tmp_path)
    assert checked == [tmp_path / "Tiny.pt"]


def assert_hub_copy(path: Path, root: Path) -> None:
    assert path == root / "Tiny.hub.pt"
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_hub_copy_where_openais_address_fails(server: FileServer, tmp_path: Path) -> None:
    del server.files[PATH]
    server.files[HUB_PATH] = save({**TENSORS, "attn_mask": torch.ones(3)})
    root = tmp_path / "cache"
    assert_hub_copy(find(root), root)
    assert_hub_copy(find(root), root)
    assert [path for path, _ in server.gets] == [PATH, HUB_PATH]


def test_safetensors_put_by_hand(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "Tiny.safetensors").write_bytes(save(TENSORS))
    stored = find(tmp_path)
    assert_hub_copy(stored, tmp_path)
    assert server.gets == []
    assert stored.stat().st_mode == (tmp_path / "Tiny.safetensors").stat().st_mode, "others may read it, too"


def test_nowhere_names_every_place_and_what_to_do(server: FileServer, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(FileNotFoundError) as raised:
        find(tmp_path)
    message = str(raised.value)
    for line in (
        rf"- {tmp_path}/Tiny.pt: no such file",
        rf"- {server.address}{PATH}: HTTP 404 Not Found",
        rf"- Hugging Face hub lab/tiny_clip at {server.address}: .*404",
        rf"download\n  {server.address}{PATH}\nand put it at {tmp_path}/Tiny.pt\n",
        rf"{server.address}{HUB_PATH}\nand put it at {tmp_path}/Tiny.safetensors\n",
    ):
        assert re.search(line, message), message


def test_no_network(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as gone:
        pass  # no server listens at this address any more
    monkeypatch.setattr(releases, "OPENAI_ADDRESS", gone.address)
    monkeypatch.setenv("HF_ENDPOINT", gone.address)
    with pytest.raises(FileNotFoundError) as raised:
        search.find(gone.address + PATH, str(tmp_path))
    assert str(raised.value).count("cannot connect") == 2


def test_other_addresses(server: FileServer, tmp_path: Path) -> None:
    server.files["/somebody/model.pt"] = CONTENT
    assert search.find(f"{server.address}/somebody/model.pt?x=1", str(tmp_path)) == tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match="HTTP 404"):
        search.find(f"{server.address}/somebody/other.pt", str(tmp_path))
    (tmp_path / "local.pt").write_bytes(CONTENT)
    assert search.find((tmp_path / "local.pt").as_uri()) == tmp_path / "local.pt"
    with pytest.raises(FileNotFoundError, match="missing from this installation"):
        search.find((tmp_path / "none.pt").as_uri())


def test_cache_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the cache folder .*/file/cache"):
        find(tmp_path / "file" / "cache")


@pytest.mark.slow
def test_two_processes_fetch_once(server: FileServer, tmp_path: Path) -> None:
    server.delay = 2.0
    code = (
        "import sys\n"
        "from clip import releases, search\n"
        "releases.OPENAI_ADDRESS, sha256, root = sys.argv[1:]\n"
        "release = releases.Release('Tiny.pt', sha256, 'lab/tiny_clip')\n"
        "search.RELEASES = {'Tiny': release}\n"
        "search.find(release.url, root)\n"
    )
    command = [sys.executable, "-c", code, server.address, SHA256, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert_whole(tmp_path / "Tiny.pt", tmp_path)
    assert server.gets == [(PATH, None)]
