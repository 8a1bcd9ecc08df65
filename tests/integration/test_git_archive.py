"""Source tarballs as Git really makes them: ``.gitattributes`` may change files on their way, and nothing else may."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from examples.release_server import Fault, Release, ReleaseServer
from tests.site import REPOSITORY, Site, tree
from updater import sources
from updater.artifacts.unpack import unpack
from updater.config import SourceConfig
from updater.errors import DigestMismatch, SourceFailed
from updater.releases.gitattributes import Attributes
from updater.releases.verification import prove

FILES = {
    "serve.py": b"print()\n",
    "run.bat": b"echo hi\nexit\n",
    "v.txt": b"id $Id$ end\n",
    "src/deep/a.txt": b"one\ntwo\n",
    "docs/index.md": b"# docs\n",
    "docs/api/x.md": b"x\n",
}


def git(where: Path, *words: str, stdin: bytes | None = None) -> bytes:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "core.autocrlf=false"]
    done = subprocess.run(
        ["git", *identity, "-C", str(where), *words], input=stdin, capture_output=True, check=True
    )
    return done.stdout


def repository(where: Path, files: Mapping[str, bytes], *, submodule: str | None = None) -> Release:
    """A release with the tree of a real commit and the archive that ``git archive`` makes of it."""
    where.mkdir()
    git(where, "init", "-q")
    for name, content in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    git(where, "add", "-A")
    if submodule:
        git(where, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{submodule}")
    git(where, "commit", "-qm", "release")
    found = {}
    for line in git(where, "ls-tree", "-rz", "HEAD").decode().split("\0")[:-1]:
        about, path = line.split("\t")
        mode, kind, sha = about.split()
        found[path] = (git(where, "cat-file", "blob", sha) if kind == "blob" else sha.encode(), mode)
    archive = git(where, "archive", "--format=tar.gz", "--prefix=example-app-1234567/", "HEAD")
    release = Release("v1.0.0", found, archive=archive)
    assert release.tree_id == git(where, "rev-parse", "HEAD^{tree}").decode().strip()
    return release


def proof(server: ReleaseServer, place: Path, release: Release) -> str:
    """What updater proves of a release's tarball."""
    assert isinstance(server.releases, list)
    server.releases[:] = [release]
    port = sources.open_source(SourceConfig(repository=REPOSITORY, api_url=server.api_url), cache=None)
    artifact = port.artifact(port.find("v1.0.0"))
    with sources.resuming(port, artifact, max_size=2**30) as stream:
        return prove(unpack(stream, place / "unpacked"), artifact)


def tampered(release: Release, change: Callable[[dict[str, bytes]], object]) -> Release:
    """The same commit, with another archive."""
    with tarfile.open(fileobj=io.BytesIO(release.tarball(REPOSITORY))) as old:
        files = {it.name: old.extractfile(it).read() for it in old if it.isfile()}  # type: ignore[union-attr]
    change(files)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as new:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    release.archive = gzip.compress(raw.getvalue())
    return release


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ("", "tree of commit"),
        ("*.bat text eol=crlf\n", "0 files left out, 1 converted"),
        ("* text=auto eol=crlf\nv.txt -text\n", "converted"),
        ("v.txt ident\n", "0 files left out, 1 converted"),
        ("v.txt ident eol=crlf\n*.bat crlf eol=crlf", "0 files left out, 2 converted"),
        ("src/**/*.txt text working-tree-encoding=UTF-16LE eol=crlf\n", "0 files left out, 1 converted"),
        (".gitattributes export-ignore\n", "1 files left out, 0 converted"),
        (".gitattributes export-ignore\n*.bat eol=crlf\n/docs export-ignore", "3 files left out, 1 converted"),
        ("[attr]internal export-ignore\ndocs/ internal\n", "2 files left out"),
        ("docs/** export-ignore\n\"src/deep/[a-c].t?t\" export-ignore\n", "3 files left out"),
    ],
)  # fmt: skip
def test_what_git_archive_changes_is_undone_and_proved(
    server: ReleaseServer, tmp_path: Path, attributes: str, says: str
) -> None:
    """F39: the usual path must not be the one without a proof. F55: what is told is what was proved."""
    release = repository(tmp_path / "repo", {**FILES, ".gitattributes": attributes.encode()})
    found = proof(server, tmp_path, release)
    assert says in found and found.startswith(f"tree of commit {release.commit[:12]}")


def test_attributes_of_a_directory_below(server: ReleaseServer, tmp_path: Path) -> None:
    files = {
        **FILES,
        ".gitattributes": b"*.txt eol=lf\n",
        "src/.gitattributes": b"deep/*.txt eol=crlf\n.gitattributes export-ignore\n",
    }
    found = proof(server, tmp_path, repository(tmp_path / "repo", files))
    assert "1 files left out, 1 converted" in found


def test_line_ends_that_were_mixed_when_they_were_committed(server: ReleaseServer, tmp_path: Path) -> None:
    """The attribute came after the file: undoing the conversion does not give the blob, so both are compared."""
    release = repository(tmp_path / "repo", {**FILES, "old.bat": b"one\r\ntwo\n"})
    (tmp_path / "repo" / ".gitattributes").write_text("*.bat text eol=crlf\n")
    git(tmp_path / "repo", "add", ".gitattributes")
    git(tmp_path / "repo", "commit", "-qm", "attributes")
    archive = git(tmp_path / "repo", "archive", "--format=tar.gz", "--prefix=a/", "HEAD")
    mixed = {**release.tree, ".gitattributes": (b"*.bat text eol=crlf\n", "100644")}
    assert "2 converted" in proof(server, tmp_path, Release("v1.0.0", mixed, archive=archive))


def test_only_what_cannot_be_undone_is_unproven(server: ReleaseServer, tmp_path: Path) -> None:
    attributes = b"v.txt export-subst\n*.bat eol=crlf\n"
    files = {**FILES, "v.txt": b"$Format:%H$\n", ".gitattributes": attributes}
    found = proof(server, tmp_path, repository(tmp_path / "repo", files))
    assert found.startswith("unproven: 1 of 7 files") and "v.txt by export-subst" in found


def test_a_submodule_is_left_out(server: ReleaseServer, tmp_path: Path) -> None:
    release = repository(tmp_path / "repo", {**FILES, ".gitmodules": b'[submodule "sub"]\n'}, submodule="sub")
    assert "1 files left out" in proof(server, tmp_path, release)


def test_an_lfs_object_is_the_one_in_its_pointer(server: ReleaseServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * 9
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
    files = {**FILES, "model.bin": pointer.encode(), ".gitattributes": b"*.bin filter=lfs -text\n"}
    release = repository(tmp_path / "repo", files)
    put = tampered(release, lambda it: it.update({"example-app-1234567/model.bin": content}))
    assert "1 converted" in proof(server, tmp_path, put)


TOP = "example-app-1234567"
TAMPERINGS: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "a changed file": (lambda it: it.update({f"{TOP}/serve.py": b"import evil\n"}), "changed: serve.py"),
    "a changed file with converted line ends": (lambda it: it.update({f"{TOP}/run.bat": b"del\r\n"}), "changed: run.bat"),
    "an added file": (lambda it: it.update({f"{TOP}/sitecustomize.py": b"evil"}), "added: sitecustomize.py"),
    "a missing file": (lambda it: it.pop(f"{TOP}/serve.py"), "missing: serve.py"),
    "line ends that no attribute asks for": (lambda it: it.update({f"{TOP}/serve.py": b"print()\r\n"}), "changed: serve.py"),
    "attributes of its own": (
        lambda it: it.update({f"{TOP}/.gitattributes": b"* export-subst\n", f"{TOP}/serve.py": b"evil"}), "changed: serve.py",
    ),
    "attributes beside the file": (
        lambda it: it.update({f"{TOP}/src/.gitattributes": b"* filter=x\n", f"{TOP}/src/deep/a.txt": b"evil"}), "changed: src/deep/a.txt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_no_attribute_of_the_tree_explains_is_refused(
    server: ReleaseServer, tmp_path: Path, name: str
) -> None:
    change, says = TAMPERINGS[name]
    attributes = b"*.bat eol=crlf\nv.txt export-subst\ndocs export-ignore\n"
    release = repository(tmp_path / "repo", {**FILES, ".gitattributes": attributes})
    with pytest.raises(DigestMismatch, match="tree of its commit") as raised:
        proof(server, tmp_path, tampered(release, change))
    assert says in raised.value.details and raised.value.exit_code == 7


def test_a_source_that_cannot_tell_the_tree_proves_nothing(server: ReleaseServer, tmp_path: Path) -> None:
    release = repository(tmp_path / "repo", {**FILES, ".gitattributes": b".gitattributes export-ignore\n"})
    server.faults += [Fault("/git/trees", "wrong-type", times=9)]
    with pytest.raises(SourceFailed, match="something else than documented"):
        proof(server, tmp_path, release)


@pytest.mark.parametrize(
    ("attributes", "accepted"), [("*.bat eol=crlf\n", True), ("* text=auto\nrun.bat -text\n", False)]
)
def test_a_tree_that_is_too_large_to_be_listed(
    server: ReleaseServer, tmp_path: Path, attributes: str, accepted: bool
) -> None:
    """Then an attribute in the tarball must do; ``text`` alone changes nothing, and so explains nothing."""
    server.faults += [Fault("/git/trees", "truncated", value=2, times=9)]
    release = repository(tmp_path / "repo", {**FILES, ".gitattributes": attributes.encode()})
    release = tampered(release, lambda it: it.update({f"{TOP}/run.bat": b"echo hi\r\n"}))
    if accepted:
        assert proof(server, tmp_path, release).startswith("unproven: .gitattributes uses eol=crlf")
        return
    with pytest.raises(DigestMismatch):
        proof(server, tmp_path, release)


def test_such_a_release_is_deployed_and_known_again(site: Site, tmp_path: Path) -> None:
    """Its tree is never the commit's: deploying it again is no alarm and downloads nothing."""
    files = {name: content for name, (content, _) in tree("v1.0.0").items()}
    attributes = b".gitattributes export-ignore\n*.bat text eol=crlf\n"
    site.releases.append(
        repository(tmp_path / "repo", {**files, "run.bat": b"exit\n", ".gitattributes": attributes})
    )
    done = site.updater("deploy", "v1.0.0")
    assert done.code == 0 and "1 files left out, 1 converted" in done.text
    fetched = [it for it in site.server.requests if it.host == "download"]
    done = site.updater("deploy", "v1.0.0")
    assert done.code == 0 and "nothing to do" in done.text
    assert [it for it in site.server.requests if it.host == "download"] == fetched
    site.runs("v1.0.0")


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("*.txt", ["a.txt", "d/e/a.txt"], ["a.txt/b", "a.txtx"]),
        ("/a", ["a"], ["d/a"]),
        ("d/*", ["d/a"], ["d/e/a", "x/d/a"]),
        ("d/**", ["d/a", "d/e/a"], ["d", "x/d/a"]),
        ("**/a", ["a", "d/a", "d/e/a"], ["ba"]),
        ("d/**/a", ["d/a", "d/e/f/a"], ["d/ba"]),
        ("a**b", ["ab", "axb"], ["x"]),
        ("d/a**b", ["d/axb"], ["d/ax/b"]),
        ("[a-c]?.x", ["bz.x"], ["dz.x", "b.x"]),
        ("[!a]x", ["bx"], ["ax"]),
        ("[&&[]x", ["&x", "[x"], ["ax"]),
        ("\\*x", ["*x"], ["ax"]),
        ("a+(b)", ["a+(b)"], ["aab"]),
    ],
)  # fmt: skip
def test_patterns_fit_as_git_has_them(
    tmp_path: Path, pattern: str, fits: list[str], fits_not: list[str]
) -> None:
    """Git itself is the judge."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text(f"{pattern} mine\n")
    found = Attributes(lambda directory: None if directory else f"{pattern} mine\n")
    for path in (*fits, *fits_not):
        said = git(tmp_path, "check-attr", "mine", "--", path).decode().strip().endswith(": set")
        assert (found.of(path).get("mine") is True) == said == (path in fits), path
