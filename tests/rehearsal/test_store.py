"""The API's memory on disk."""

import pickle
import threading
from pathlib import Path

import pytest

from rehearsal.store import VERSION, Memory, Store, UnreadableError, read


def test_memory_survives(tmp_path: Path) -> None:
    """Only its owner may read and write the file, because loading a changed one would run its code."""
    memory = Memory({"ec2": {"0": {"eu": ["x"]}}}, {"i-1": {"address": "10.99.0.4"}})
    Store(tmp_path / "memory", lambda: memory).save()
    assert read(tmp_path / "memory") == memory
    assert (tmp_path / "memory").stat().st_mode & 0o077 == 0


def test_no_file_is_an_empty_memory(tmp_path: Path) -> None:
    assert read(tmp_path / "memory") == Memory()


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (b"", "EOFError"),
        (b"nonsense", "UnpicklingError"),
        (pickle.dumps((VERSION, Memory()))[:-9], "Error"),
        (pickle.dumps(((1, "5.0.0"), Memory())), "version"),
        (pickle.dumps((VERSION, "x")), "version"),
    ],
)
def test_unusable_files_are_told_apart_from_none(tmp_path: Path, left: bytes, reason: str) -> None:
    (tmp_path / "memory").write_bytes(left)
    with pytest.raises(UnreadableError, match=reason):
        read(tmp_path / "memory")


def test_service_that_cannot_be_kept_does_not_take_the_others_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory({"ec2": {"0": {}}, "odd": {"0": {"eu": threading.Lock()}}})
    Store(tmp_path / "memory", lambda: memory).save()
    assert list(read(tmp_path / "memory").backends) == ["ec2"]
    assert "odd will be forgotten" in caplog.text


def test_change_of_another_request_meanwhile_is_waited_for(tmp_path: Path) -> None:
    tries: list[int] = []

    def memory() -> Memory:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return Memory()

    Store(tmp_path / "memory", memory).save()
    assert len(tries) == 2


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    store = Store(tmp_path / "memory", Memory)
    store.save()
    (tmp_path / "memory").unlink()
    store.save()
    assert not (tmp_path / "memory").exists()
