"""The hash key: made once, or given in a file that nobody else may read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from cio_proxy.state import alone, hash_key

KEY = bytes(range(32))


def test_a_key_is_made_once(tmp_path: Path) -> None:
    assert hash_key(tmp_path) == hash_key(tmp_path)
    assert (tmp_path / "hash.key").stat().st_mode & 0o777 == 0o600


def test_who_comes_while_it_is_made_waits_for_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        with alone(tmp_path):
            (tmp_path / "hash.key").touch()
            coming = other.submit(hash_key, tmp_path)
            wait([coming], timeout=0.1)
            (tmp_path / "hash.key").write_bytes(KEY)
        assert coming.result(10) == KEY


@pytest.mark.parametrize("content", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_given_key_is_bytes_or_digits(tmp_path: Path, content: bytes, mode: int) -> None:
    file = tmp_path / "given"
    file.write_bytes(content)
    file.chmod(mode)
    assert hash_key(tmp_path, str(file)) == KEY
    assert not (tmp_path / "hash.key").exists()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o640 | 0o010])
def test_a_given_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "given"
    file.write_bytes(KEY)
    file.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        hash_key(tmp_path, str(file))


@pytest.mark.parametrize("content", [b"", KEY[:31], KEY + b"\n", KEY.hex().encode()[:-2], b"z" * 64, b"\xff" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "given"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ValueError, match="holds neither"):
        hash_key(tmp_path, str(file))
