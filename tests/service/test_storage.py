"""Files appear whole or not at all, folders are published by one rename, and paths stay inside."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service import storage
from service.errors import Problem
from tests.waiting import HANG_SECONDS


def test_a_written_file_has_its_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "admin.key"
    storage.write_file(path, b"secret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "index"
    storage.write_file(path, b"old")
    with pytest.raises(ZeroDivisionError), storage.open_for_publishing(path) as file:
        file.write(bytes([1 // 0]))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    storage.write_file(path, b"old")
    with storage.open_for_publishing(path) as file:
        file.write(b"new, and longer")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new, and longer"


def test_a_folder_is_published_once(tmp_path: Path) -> None:
    _make_folder(tmp_path / "draft", "weights")
    storage.publish_folder(tmp_path / "draft", tmp_path / "models" / "mdl_1")
    assert (tmp_path / "models" / "mdl_1" / "weights").read_text() == "weights"
    assert not (tmp_path / "draft").exists()
    _make_folder(tmp_path / "draft", "others")
    with pytest.raises(FileExistsError, match="never replaced"):
        storage.publish_folder(tmp_path / "draft", tmp_path / "models" / "mdl_1")
    assert (tmp_path / "models" / "mdl_1" / "weights").exists()


def test_deleting_a_tree_does_not_follow_links(tmp_path: Path) -> None:
    _make_folder(tmp_path / "kept", "picture")
    _make_folder(tmp_path / "gone", "x")
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "direct").symlink_to(tmp_path / "kept")
    for name in ("gone", "direct", "never there"):
        storage.delete_tree(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "picture").exists()


def test_a_folder_is_deleted_by_many_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    for number in range(500):
        storage.write_file(folder / str(number % 5) / f"{number}.jpg", b"")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storage.delete_tree, [folder] * 8))
    assert not folder.exists()


def test_deleting_a_file_tells_whether_it_was_there(tmp_path: Path) -> None:
    storage.write_file(tmp_path / "a", b"")
    assert storage.delete_file(tmp_path / "a") is True
    assert storage.delete_file(tmp_path / "a") is False


def test_too_little_disk_space_is_507_with_the_figures(tmp_path: Path) -> None:
    storage.ensure_free_space(tmp_path / "not" / "yet" / "there", needed_bytes=1, min_free_bytes=0)
    with pytest.raises(Problem, match=r"1,000,000,000,000,000 must stay free") as caught:
        storage.ensure_free_space(tmp_path, needed_bytes=5, min_free_bytes=10**15)
    assert (caught.value.slug, caught.value.status) == ("disk-full", 507)
    assert "REID_MIN_FREE_BYTES" in caught.value.hint


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, ...]:
    """Two roots; `a` holds a data set, a link to one in `b`, one that leads out and one that leads in a circle."""
    for name in ("a/market", "b/msmt", "secret/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b" / "msmt")
    (tmp_path / "a" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a" / "circle")
    return tmp_path / "a", tmp_path / "b"


def test_paths_under_a_root_are_resolved(roots: tuple[Path, ...], tmp_path: Path) -> None:
    assert storage.resolve_data_path(str(tmp_path / "a" / "market"), roots) == tmp_path / "a" / "market"
    assert storage.resolve_data_path("msmt", roots) == tmp_path / "b" / "msmt"
    assert storage.resolve_data_path("to-b", roots) == tmp_path / "b" / "msmt"


def test_a_root_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "market").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    found = storage.resolve_data_path(str(tmp_path / "root" / "market"), [tmp_path / "root"])
    assert found == tmp_path / "real" / "market"


@pytest.mark.parametrize(
    "path", ["/etc", "../secret", "market/../../secret", "out", "out/data", "circle", "/proc/self/cwd", "mar\0ket"]
)
def test_paths_that_lead_out_are_refused_with_the_roots_named(path: str, roots: tuple[Path, ...]) -> None:
    with pytest.raises(Problem) as caught:
        storage.resolve_data_path(path, roots)
    assert (caught.value.slug, caught.value.status) == ("path-outside-data-roots", 422)
    assert all(str(root) in caught.value.detail for root in roots)


def test_a_sibling_whose_name_begins_like_a_root_is_outside(tmp_path: Path) -> None:
    (tmp_path / "data-private").mkdir()
    with pytest.raises(Problem, match="is not under a data root"):
        storage.resolve_data_path(str(tmp_path / "data-private"), [tmp_path / "data"])


@pytest.mark.parametrize("path", ["nothing", "market/nothing", "n" * 300])
def test_a_missing_folder_is_told_apart_from_a_forbidden_one(path: str, roots: tuple[Path, ...]) -> None:
    with pytest.raises(Problem, match="There is nothing at") as caught:
        storage.resolve_data_path(path, roots)
    assert caught.value.slug == "invalid-dataset"


@pytest.mark.parametrize("relative", ["../b", "/etc/passwd", "out/data", "a\0b", "market/../../secret"])
def test_a_stored_relative_path_cannot_leave_its_folder(relative: str, roots: tuple[Path, ...]) -> None:
    with pytest.raises(Problem, match="There is no file"):
        storage.resolve_inside(roots[0], relative)


def test_a_stored_relative_path_is_found(roots: tuple[Path, ...]) -> None:
    assert storage.resolve_inside(roots[0], "market") == roots[0] / "market"


def _make_folder(folder: Path, file: str) -> None:
    folder.mkdir()
    (folder / file).write_text(file)


def test_a_claimed_folder_is_another_s_only_after_its_holder_and_then_gone(tmp_path: Path) -> None:
    folder = tmp_path / "arriving" / "upload"
    with storage.claim(folder) as first:
        (folder / "picture").write_bytes(b"x")
        with storage.claim(folder) as second:
            assert (first, second) == (True, False)
        assert (folder / "picture").exists()
    assert not folder.exists()


def test_a_holder_that_is_killed_leaves_its_folder_to_whoever_comes_next(tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    program = (
        "import os, sys; from pathlib import Path; from service.storage import claim\n"
        "with claim(Path(sys.argv[1])):\n    print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with storage.claim(folder) as free:
            assert not free
        holder.kill()
        holder.wait(HANG_SECONDS)
    assert folder.exists()
    with storage.claim(folder) as free:
        assert free
    assert not folder.exists()


def test_claims_that_come_and_go_together_are_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder, inside = tmp_path / "parent" / "one", tmp_path / "inside"

    def take(number: int) -> bool:
        with storage.claim(folder) as free:
            if free:
                inside.touch(exist_ok=False)  # an error where another is in
                inside.unlink()
            return free

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(take, range(400)))
    assert not folder.exists()
