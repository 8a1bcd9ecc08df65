"""The unpacker under attack: nothing outside its directory is ever touched, and what comes out is what went in."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from updater.artifacts import Entry, Manifest, compare
from updater.artifacts.unpack import Donor, Limits, Unpacked, unpack
from updater.errors import HostileArchive, VerificationFailed

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    return info, content


def tar(members: Members, form: int = tarfile.GNU_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


class Slow(io.BytesIO):
    """Gives a few bytes at a time, as a network does."""

    step = 7

    def read(self, count: int | None = -1) -> bytes:  # type: ignore[override]
        return super().read(self.step if count is None or count < 0 else min(count, self.step))


def unpacked(raw: bytes, into: Path, **more: object) -> Unpacked:
    return unpack(io.BytesIO(raw), into, **more)  # type: ignore[arg-type]


GOOD = member("app/serve.py", b"print()\n")
FILE = tarfile.REGTYPE
HOSTILE: dict[str, Members] = {
    "dot dot": [member("../evil", b"x")],
    "dot dot inside": [member("app/a/../../../evil", b"x")],
    "absolute name": [member("/tmp/evil", b"x")],
    "absolute symlink": [GOOD, member("app/l", kind=tarfile.SYMTYPE, link="/etc/passwd")],
    "escaping symlink": [GOOD, member("app/l", kind=tarfile.SYMTYPE, link="../../outside")],
    "symlink that escapes the stripped tree": [GOOD, member("app/l", kind=tarfile.SYMTYPE, link="../beside")],
    "chain of symlinks": [
        GOOD, member("app/d", kind=tarfile.DIRTYPE), member("app/d/up", kind=tarfile.SYMTYPE, link=".."),
        member("app/out", kind=tarfile.SYMTYPE, link="d/up/../.."),
    ],
    "chain of symlinks that is one where case is ignored": [
        GOOD, member("app/d/e/up", kind=tarfile.SYMTYPE, link="../.."), member("app/d/e/out", kind=tarfile.SYMTYPE, link="UP/.."),
    ],
    "symlink with an endless target": [GOOD, member("app/l", kind=tarfile.SYMTYPE, link="d/" * 700)],
    "symlink loop": [GOOD, member("app/a", kind=tarfile.SYMTYPE, link="b"), member("app/b", kind=tarfile.SYMTYPE, link="a")],
    "file through a symlink": [member("app/l", kind=tarfile.SYMTYPE, link="."), member("app/l/evil", b"x")],
    "symlink in place of a directory": [member("app/d/f", b"x"), member("app/d", kind=tarfile.SYMTYPE, link="..")],
    "escaping hard link": [GOOD, member("app/l", kind=tarfile.LNKTYPE, link="../../outside/precious")],
    "absolute hard link": [GOOD, member("app/l", kind=tarfile.LNKTYPE, link="/etc/passwd")],
    "hard link to a symlink": [GOOD, member("app/s", kind=tarfile.SYMTYPE, link="serve.py"), member("app/l", kind=tarfile.LNKTYPE, link="app/s")],
    "hard link to what comes later": [member("app/l", kind=tarfile.LNKTYPE, link="app/serve.py"), GOOD],
    "character device": [GOOD, member("app/null", kind=tarfile.CHRTYPE)],
    "block device": [GOOD, member("app/disk", kind=tarfile.BLKTYPE)],
    "fifo": [GOOD, member("app/pipe", kind=tarfile.FIFOTYPE)],
    "unknown type": [GOOD, member("app/odd", kind=b"Z")],
    "the same name twice": [GOOD, GOOD],
    "names that differ in case": [GOOD, member("app/SERVE.py", b"x")],
    "names that differ in Unicode form": [GOOD, member("app/\u00e9", b"x"), member("app/e\u0301", b"y")],
    "a directory that differs in case": [member("app/a/f", b"x"), member("app/A/g", b"x")],
    "a file below a file": [GOOD, member("app/serve.py/evil", b"x")],
    "a name of updater's": [GOOD, member("app/.venv/bin/python", b"x")],
    "a name of updater's in capitals": [GOOD, member("app/.Release/release.json", b"x")],
    "a name of updater's, once case is folded": [GOOD, member("app/.relea\u017fe/release.json", b"x")],
    "a newline in a name": [GOOD, member("app/a\nb", b"x")],
    "a very long name": [GOOD, member("app/" + "n" * 300, b"x")],
    "a very deep path": [GOOD, member("app/" + "d/" * 100 + "f", b"x")],
    "no files": [member("app/", kind=tarfile.DIRTYPE)],
}  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A neighbourhood that must stay as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("data")
    return tmp_path


def neighbourhood(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and "into" not in path.relative_to(place).parts[0]
    }


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_hostile_archive_is_refused_and_touches_nothing_outside(canary: Path, name: str, form: int) -> None:
    before = neighbourhood(canary)
    with pytest.raises(HostileArchive) as raised:
        unpacked(gzip.compress(tar(HOSTILE[name], form)), canary / "into")
    assert raised.value.exit_code == 7 and raised.value.advice
    assert neighbourhood(canary) == before
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    ("limits", "members"),
    [
        (Limits(entries=10), [member(f"app/{n}", b"x") for n in range(20)]),
        (Limits(total=1000), [member("app/big", bytes(2000))]),
        (
            Limits(ratio=10, ratio_from=1000),
            [member("app/zeros", bytes(5_000_000)), member("app/more", bytes(5_000_000))],
        ),
        (Limits(entries=10), [member("app/d", kind=tarfile.DIRTYPE)] * 20),
        (Limits(total=30_000), [member("app/" + "d/" * 60 + str(n) * 60) for n in range(60)]),
    ],
    ids=["entries", "size", "ratio", "one directory again and again", "headers"],
)
def test_what_is_too_much_is_refused_early(canary: Path, limits: Limits, members: Members) -> None:
    with pytest.raises(HostileArchive, match="more than"):
        unpacked(gzip.compress(tar(members)), canary / "into", limits=limits)


def test_ten_gigabytes_of_zeros_are_refused_by_their_header(canary: Path) -> None:
    info = tarfile.TarInfo("app/zeros")
    info.size = 10 * 1024**3
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(HostileArchive, match="unpacks to more than"):
        unpacked(gzip.compress(header + bytes(10_000)), canary / "into")
    assert sum(path.stat().st_size for path in (canary / "into").rglob("*")) < 10_000


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in members": lambda raw: gzip.compress(raw[:700]) + gzip.compress(raw[700:]),
    "gzip with padding": lambda raw: gzip.compress(raw) + bytes(512),
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"]
)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_and_format_gives_the_same_release(
    tmp_path: Path, compression: str, form: int
) -> None:
    long = "app/" + "d" * 90 + "/" + "f" * 60
    members = [
        GOOD, member("app/bin/run", b"#!/bin/sh\n", mode=0o775), member("app/empty/", kind=tarfile.DIRTYPE),
        member("app/link", kind=tarfile.SYMTYPE, link="bin/run"), member(long, b"long"), member("app/big", bytes(range(256)) * 4000),
        member("app/same", kind=tarfile.LNKTYPE, link="app/serve.py"),
    ]  # fmt: skip
    found = unpack(Slow(COMPRESSIONS[compression](tar(members, form))), tmp_path / "into")
    assert found.tree == tmp_path / "into" / "app"
    assert [entry.path.split("/")[0][:5] for entry in found.manifest.entries] == [
        "big",
        "bin",
        "bin",
        "ddddd",
        "ddddd",
        "empty",
        "link",
        "same",
        "serve",
    ]
    assert (found.tree / "link").read_text() == "#!/bin/sh\n"
    assert oct((found.tree / "bin" / "run").stat().st_mode & 0o777) == "0o555"
    assert oct((found.tree / "serve.py").stat().st_mode & 0o777) == "0o444"
    assert compare(found.tree, found.manifest) == []
    assert Manifest.from_bytes(found.manifest.as_bytes()).digest == found.manifest.digest


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "gzip with padding"])
def test_a_cut_archive_is_never_taken_for_whole(tmp_path: Path, compression: str) -> None:
    raw = COMPRESSIONS[compression](tar([GOOD, member("app/big", os.urandom(500_000))]))
    for tenth in range(10):
        with pytest.raises(VerificationFailed):
            unpacked(raw[: len(raw) * tenth // 10], tmp_path / f"into{tenth}")


@pytest.mark.parametrize("size", [0, 5, 700, 300_000])
@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "bare"])
def test_zstd_that_lacks_any_of_its_last_bytes_is_cut_off(tmp_path: Path, size: int, checksum: bool) -> None:
    """F39: the tar is whole already when only a part of the checksum behind it is missing."""
    engine = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size != 700)
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    archive = tar([GOOD, member("app/big", os.urandom(size))])
    raw = engine.compress(archive[:1000]) + skippable + engine.compress(archive[1000:])
    assert unpack(Slow(raw), tmp_path / "into").manifest.file_count == 2
    for missing in range(1, 25):
        with pytest.raises(VerificationFailed, match="cut off"):
            unpacked(raw[:-missing], tmp_path / f"into{missing}")


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("trailing", [b"m", b"mo", b"more", b"more and more" * 20])
def test_what_lies_behind_a_stream_is_called_by_its_name(
    tmp_path: Path, compression: str, trailing: bytes
) -> None:
    raw = COMPRESSIONS[compression](tar([GOOD])) + trailing
    with pytest.raises(VerificationFailed, match=r"does not belong|damaged") as raised:
        unpacked(raw, tmp_path / "into")
    assert "cut off" not in raised.value.message


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_no_process(tmp_path: Path) -> None:
    """F25: the process that writes tells what went wrong; here a limit on the size of files stands for the full disk."""
    (tmp_path / "a.tar").write_bytes(
        tar([GOOD, member("app/big", bytes(3_000_000)), member("app/more", bytes(3_000_000))])
    )
    code = """
import errno, os, resource, signal, sys
from pathlib import Path
from updater.artifacts.unpack import unpack
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    unpack(open(sys.argv[1], "rb"), Path(sys.argv[2]))
except OSError as failure:
    print(errno.errorcode[failure.errno], failure.filename)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.tar"), str(tmp_path / "into")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "EFBIG app/big\nno child is left\n", done.stderr


def test_rubbish_and_trailing_rubbish_are_refused(tmp_path: Path) -> None:
    for number, raw in enumerate(
        (b"", b"<html>404</html>" * 100, gzip.compress(b"no tar" * 200), gzip.compress(tar([GOOD])) + b"more")
    ):
        with pytest.raises(VerificationFailed):
            unpacked(raw, tmp_path / f"into{number}")


NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_characters="/\\\x7f"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..", ".venv", ".release"))
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.tuples(st.binary(max_size=600), st.booleans()),
    min_size=1,
    max_size=12,
)


def is_a_tree(files: dict[str, tuple[bytes, bool]]) -> bool:
    import unicodedata

    def fold(path: str) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())

    everything = {path for name in files for path in parents(name)} | set(files)
    clashes = len({fold(path) for path in everything}) != len(everything)
    reserved = any(
        fold(name.split("/")[0]) in (".venv", ".release", ".git") or ".git" in name.lower() for name in files
    )
    return (
        not clashes
        and not reserved
        and not any(parent in files for name in files for parent in parents(name))
    )


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def archive_of(files: dict[str, tuple[bytes, bool]], form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar(
        [
            member(f"app/{name}", content, mode=0o755 if run else 0o644)
            for name, (content, run) in files.items()
        ],
        form,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES.filter(is_a_tree))
def test_the_tree_id_is_the_one_that_git_computes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[bytes, bool]]
) -> None:
    place = tmp_path_factory.mktemp("git")
    found = unpacked(archive_of(files), place / "into")
    assert {entry.path: entry.sha256.hex() for entry in found.manifest.entries if entry.is_file} == {
        name: hashlib.sha256(content).hexdigest() for name, (content, _) in files.items()
    }
    env = {
        **os.environ,
        "GIT_DIR": str(place / "git"),
        "GIT_WORK_TREE": str(found.tree),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    git = ["git", "-c", "core.autocrlf=false", "-c", "core.excludesFile=/dev/null"]
    for command in (["init", "-q"], ["add", "-A", "-f", "."]):
        subprocess.run([*git, *command], env=env, cwd=found.tree, check=True, capture_output=True)
    written = subprocess.run(
        [*git, "write-tree"], env=env, cwd=found.tree, check=True, capture_output=True, text=True
    )
    assert written.stdout.strip() == found.manifest.tree_id


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES.filter(is_a_tree), st.integers(min_value=0), st.integers(1, 255), st.booleans())
def test_a_flipped_byte_never_gets_out_and_never_lies(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, tuple[bytes, bool]],
    place: int,
    flip: int,
    packed: bool,
) -> None:
    raw = bytearray(gzip.compress(archive_of(files)) if packed else archive_of(files))
    raw[place % len(raw)] ^= flip
    top = tmp_path_factory.mktemp("flip")
    try:
        found = unpacked(bytes(raw), top / "into")
    except VerificationFailed:
        pass
    else:
        assert compare(found.tree, found.manifest) == []
    assert os.listdir(top) in (["into"], [])


def test_equal_files_are_shared_and_an_edited_donor_is_not(tmp_path: Path) -> None:
    raw = tar([GOOD, member("app/big", bytes(range(256)) * 4000), member("app/other", b"other")])
    first = unpacked(raw, tmp_path / "first")
    donor = Donor.of(first.tree, first.manifest)
    second = unpacked(raw, tmp_path / "second", donors=[donor])
    assert second.shared == 3
    assert (second.tree / "big").stat().st_ino == (first.tree / "big").stat().st_ino
    for name in ("serve.py", "big"):
        victim = first.tree / name
        content = bytearray(victim.read_bytes())
        content[0] ^= 1
        shutil.copy(victim, tmp_path / "copy")
        victim.unlink()
        victim.write_bytes(content)
        victim.chmod(0o444)
    third = unpacked(raw, tmp_path / "third", donors=[donor])
    assert third.shared == 1 and compare(third.tree, third.manifest) == []
    assert third.manifest.digest == first.manifest.digest


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tree: (tree / "serve.py").write_text("evil"), "changed"),
        (lambda tree: (tree / "serve.py").unlink(), "missing"),
        (lambda tree: (tree / "new").write_text("x"), "added"),
        (lambda tree: (tree / "bin" / "run").chmod(0o644), "executable"),
        (lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("serve.py")), "target"),
        (lambda tree: ((tree / "serve.py").unlink(), (tree / "serve.py").symlink_to("bin/run")), "type"),
    ],
    ids=["changed", "missing", "added", "executable", "target", "type"],
)
def test_every_kind_of_change_is_seen(tmp_path: Path, change: Callable[[Path], object], what: str) -> None:
    members = [
        GOOD,
        member("app/bin/run", b"x", mode=0o755),
        member("app/link", kind=tarfile.SYMTYPE, link="bin/run"),
    ]
    found = unpacked(tar(members), tmp_path / "into")
    for path in found.tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o755 if path.name == "run" else 0o644)
    assert compare(found.tree, found.manifest) == []
    change(found.tree)
    assert [it.what for it in compare(found.tree, found.manifest)] == [what]


def test_headers_that_announce_without_end_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    raw = io.BytesIO()
    for number in range(2000):
        body = b"%d " % 1000 + b"k%d=" % number
        body = body.ljust(999, b"x") + b"\n"
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, len(body)
        raw.write(header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(1024, b"\0"))
    raw.seek(0)
    with pytest.raises(HostileArchive, match="announce"):
        unpack(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (512 + 124, b"00000000089\0"),
        (512 + 124, b"-0000001000\0"),
        (512 + 124, b"+0000000000\0"),
        (512 + 124, b"000000_0000\0"),
        (512 + 124, b"\xff" * 12),
        (1024 + 100, b"0000989\0"),
        (1024 + 100, b"-000644\0"),
    ],
)
def test_a_header_with_what_is_no_number_is_refused(tmp_path: Path, at: int, field: bytes) -> None:
    """A size below nothing would lead back to a header that was read already, for ever."""
    archive = bytearray(tar([member("d", kind=tarfile.DIRTYPE), member("g", kind=tarfile.XGLTYPE), GOOD]))
    archive[at : at + len(field)] = field
    header = at // 512 * 512
    archive[header + 148 : header + 156] = b" " * 8
    archive[header + 148 : header + 156] = b"%06o\0 " % sum(archive[header : header + 512])
    with pytest.raises(VerificationFailed, match="no number"):
        unpacked(bytes(archive), tmp_path / "into")


def test_a_file_named_like_standard_input_is_checked_as_a_file() -> None:
    manifest = Manifest((Entry("-", "F", 0, hashlib.sha256(b"").digest()),))
    assert manifest.sums().endswith(b"  ./-\n")
