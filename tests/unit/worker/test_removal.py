from __future__ import annotations

from pathlib import Path

from graphvine.worker.removal import Remover


def test_files_and_directories_lose_their_names_at_once(tmp_path: Path) -> None:
    remover = Remover()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "full" / "sub").mkdir(parents=True)
    (tmp_path / "full" / "sub" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("file", "full", "link", "absent"):
        remover.remove(str(tmp_path / name))
        assert not (tmp_path / name).is_symlink()
        assert not (tmp_path / name).exists()
    # Takes the rest of what was asked for with it, or leaves it aside.
    remover.close()
    assert all(path.name.startswith(".gone-") for path in tmp_path.iterdir())
