from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from tinker_ray.cli.archive import safe_path, unpack
from tinker_ray.cli.failure import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def packed(path: Path, *members: tuple[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    """Write an archive of files, and of members as they are."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload] # any mode
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def of_type(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_come_out_as_they_went_in(tmp_path: Path, mode: str) -> None:
    files = (("adapter_config.json", b"{}"), ("./deep/er/x.bin", b"123"))
    archive = packed(tmp_path / "a.tar", of_type("deep", tarfile.DIRTYPE), *files, mode=mode)
    assert 5 == unpack(archive, tmp_path / "out")
    assert b"{}" == (tmp_path / "out/adapter_config.json").read_bytes()
    assert b"123" == (tmp_path / "out/deep/er/x.bin").read_bytes()
    assert ["a.tar", "out"] == sorted(each.name for each in tmp_path.iterdir())


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x"),
        ("/etc/evil", b"x"),
        ("deep/../../evil", b"x"),
        of_type("link", tarfile.SYMTYPE, "/etc/passwd"),
        of_type("hard link", tarfile.LNKTYPE, "../evil"),
        of_type("device", tarfile.CHRTYPE),
        of_type("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member[0],
)
def test_what_no_checkpoint_holds_is_refused_and_leaves_nothing(
    tmp_path: Path, member: tuple[str, bytes | tarfile.TarInfo]
) -> None:
    archive = packed(tmp_path / "a.tar", ("good", b"1"), member)
    with pytest.raises(CommandError, match=r"unsafe path|neither a file nor a folder"):
        unpack(archive, tmp_path / "out")
    assert ["a.tar"] == [each.name for each in tmp_path.iterdir()]
    assert not (tmp_path.parent / "evil").exists()


def test_a_damaged_archive_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar", ("x", b"1" * 5000))
    archive.write_bytes(archive.read_bytes()[:2000])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("kept")
    with pytest.raises(CommandError, match=r"a\.tar cannot be unpacked") as caught:
        unpack(archive, tmp_path / "out")
    assert "download it again" in str(caught.value.fix)
    assert ["old"] == [each.name for each in (tmp_path / "out").iterdir()]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("gone")
    unpack(packed(tmp_path / "a.tar", ("new", b"1")), tmp_path / "out")
    assert ["new"] == [each.name for each in (tmp_path / "out").iterdir()]
    assert ["a.tar", "out"] == sorted(each.name for each in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a\\b"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError):
        safe_path(tmp_path, name)
