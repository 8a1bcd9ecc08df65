"""Environments: found, built, cloned, and left alone. Offline, with small wheels made here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from updater import environments
from updater.config import EnvironmentConfig
from updater.environments import inspect, requirements, tools
from updater.errors import Cancelled, EnvironmentFailed

HERE = EnvironmentConfig(python=sys.executable)


def wheel(
    folder: Path, name: str, version: str, code: str = "def main():\n    print('hello')\n", **more: str
) -> Path:
    """A small wheel with a console script (binary distribution format, packaging.python.org). ``more``: other modules."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n{code}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        **{f"{module}.py": text for module, text in more.items()},
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(inner), text)
    return path


def make(place: Path, wanted: str | None, *versions: str, **files: str) -> Path:
    """An unpacked release with wheels of `hello` in these versions."""
    place.mkdir(parents=True)
    for version in versions:
        wheel(place / "wheels", "hello", version)
    if wanted is not None:
        (place / "requirements.txt").write_text(wanted)
    (place / "app.py").write_text("import hello\nprint(hello.VERSION)\n")
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


def build(
    release: Path, *donors: Path, config: EnvironmentConfig = HERE, **more: Any
) -> environments.EnvironmentRecord:
    record = environments.build(release, config, donors=donors, **more)
    (release / ".release").mkdir(exist_ok=True)
    (release / ".release" / "release.json").write_text(json.dumps({"environment": record.as_json()}))
    return record


def says(release: Path, *command: str) -> str:
    return subprocess.run(command, cwd=release, check=True, capture_output=True, text=True).stdout.strip()


def snapshot(tree: Path) -> dict[str, object]:
    return {
        str(path.relative_to(tree)): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes(), path.stat().st_mode)
        for path in tree.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("tool", ["uv", "venv"])
def test_scripts_run_wherever_the_release_lies_and_through_the_link(tmp_path: Path, tool: str) -> None:
    """F43: spaces, a long path, and a symlink in front of it."""
    place = tmp_path / "a root with spaces" / ("long" * 20) / ("path" * 15) / "v1"
    release = make(place, "hello==1.0\n", "1.0")
    build(release, config=EnvironmentConfig(python=sys.executable, tool=tool))
    (tmp_path / "current").symlink_to(release)
    assert says(release, str(release / ".venv" / "bin" / "hello")) == "hello"
    assert says(tmp_path, str(tmp_path / "current" / ".venv" / "bin" / "hello")) == "hello"
    assert says(release, str(release / ".venv" / "bin" / "python"), "app.py") == "1.0"


def test_a_clone_is_its_own_and_its_donor_stays_as_it_was(tmp_path: Path) -> None:
    """F03: the next release gets another version; the one before keeps its own, byte for byte."""
    first = make(tmp_path / "v1", "hello==1.0\n", "1.0", "2.0")
    one = build(first)
    before = snapshot(first / ".venv")
    second = make(tmp_path / "v2", "hello==2.0\n", "1.0", "2.0")
    two = build(second, first)
    assert (one.cloned_from, two.cloned_from) == (None, "v1")
    assert says(second, str(second / ".venv/bin/python"), "app.py") == "2.0"
    assert says(first, str(first / ".venv/bin/python"), "app.py") == "1.0"
    assert snapshot(first / ".venv") == before
    third = make(tmp_path / "v3", "hello==2.0\n", "1.0", "2.0")
    assert build(third, second, first).seconds < two.seconds
    mine, theirs = (path / ".venv" / "pyvenv.cfg" for path in (third, second))
    assert mine.stat().st_ino == theirs.stat().st_ino, "stored once"


def test_a_package_that_goes_from_a_clone_takes_no_file_of_another_along(tmp_path: Path) -> None:
    """Two packages that bring the same module, as opencv-python and opencv-python-headless do; the next release drops one."""
    first = make(tmp_path / "v1", "hello==1.0\nother==1.0\n")
    second = make(tmp_path / "v2", "hello==1.0\n")
    for release in (first, second):
        wheel(release / "wheels", "hello", "1.0", common="")
        wheel(release / "wheels", "other", "1.0", common="")
    build(first)
    record = build(second, first)
    assert says(second, ".venv/bin/python", "-c", "import common, hello; print(hello.VERSION)") == "1.0"
    assert [name for name, _ in record.packages] == ["hello"] and record.cloned_from is None
    assert inspect.damage_of(second) is None
    assert inspect.damage_of(first) is None


def test_a_rebuild_repairs_what_is_damaged_in_every_release_that_shares_it(tmp_path: Path) -> None:
    """A card that loses bits changes neither size nor time of a file."""
    first, second = (make(tmp_path / name, "hello==1.0\n", "1.0") for name in ("v1", "v2"))
    build(first)
    build(second, first)
    module = next((second / ".venv").glob("lib/python*/site-packages/hello/__init__.py"))
    before = module.stat()
    with module.open("r+b") as file:
        file.write(b"X")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert inspect.damage_of(first) and inspect.damage_of(second)
    for release, other in ((second, first), (first, second)):
        environments.rebuild(release, HERE, donors=[other])
        assert inspect.damage_of(release) is None, release.name


def test_an_edited_environment_does_not_spread(tmp_path: Path) -> None:
    first = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    build(first)
    victim = next(first.glob(".venv/lib/*/site-packages/hello/__init__.py"))
    victim.chmod(0o644)
    victim.write_text("VERSION = 'evil'\n")
    second = make(tmp_path / "v2", "hello==1.0\n", "1.0")
    assert build(second, first).cloned_from is None
    assert says(second, str(second / ".venv/bin/python"), "app.py") == "1.0"


def test_an_edited_environment_is_told(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    record = build(release).as_json()
    subprocess.run([release / ".venv/bin/python", "app.py"], cwd=release, check=True, capture_output=True)
    assert environments.edit_of(release, record) is None, "running it is no edit"
    (next(release.glob(".venv/lib/*/site-packages")) / "hotfix.py").write_text("x = 1\n")
    assert "changed" in (environments.edit_of(release, record) or "")
    assert environments.problem_of(release, record) is None, "it still runs"


def test_running_the_application_changes_nothing(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    build(release)
    before = snapshot(release)
    assert any("__pycache__/app." in name for name in before), "compiled at build time"
    subprocess.run(
        [release / ".venv/bin/python", "-c", "import app"], cwd=release, check=True, capture_output=True
    )
    assert snapshot(release) == before
    assert not any(
        path.stat().st_mode & 0o222
        for path in (release / ".venv").rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def test_hashes_are_enforced(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", f"hello==1.0 --hash=sha256:{'0' * 64}\n", "1.0")
    with pytest.raises(EnvironmentFailed) as raised:
        build(release)
    assert "hash" in raised.value.as_text().lower()
    good = make(tmp_path / "v2", None, "1.0")
    digest = hashlib.sha256((good / "wheels" / "hello-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    (good / "requirements.txt").write_text(f"hello==1.0 --hash=sha256:{digest}\n")
    assert build(good).packages == (("hello", "1.0"),)


def uv(release: Path, *command: str, **more: Any) -> None:
    found = tools.find_uv()
    assert found is not None
    subprocess.run([found, *command], cwd=release, check=True, capture_output=True, text=True, **more)


def test_uv_lock_decides_and_a_lock_without_hashes_is_taken(tmp_path: Path) -> None:
    """A lock has no hash for what it takes from a folder or from Git; the lock is the newest there is all the same."""
    project = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["hello"]\n'
    offline = '[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n'
    release = make(tmp_path / "v1", "hello==9.9\n", "1.0", pyproject__toml=project + offline)
    uv(release, "lock", "--python", sys.executable)
    wheel(release / "wheels", "hello", "2.0")
    lock = (release / "uv.lock").read_bytes()
    record = build(release)
    assert (record.kind, record.packages) == ("uv.lock", (("hello", "1.0"),))
    assert says(release, str(release / ".venv/bin/python"), "app.py") == "1.0"
    assert (release / "uv.lock").read_bytes() == lock


def test_pylock_is_installed_and_its_hashes_are_enforced(tmp_path: Path) -> None:
    """PEP 751."""
    release = make(tmp_path / "v1", None, "1.0")
    asked = ("pip", "compile", "-", "--format", "pylock.toml", "--no-index", "--find-links", "wheels")
    uv(release, *asked, "--output-file", "pylock.toml", "--python", sys.executable, input="hello\n")
    record = build(release)
    assert (record.kind, record.packages) == ("pylock", (("hello", "1.0"),))
    other = make(tmp_path / "v2", None, "1.0")
    text = (release / "pylock.toml").read_text()
    published = hashlib.sha256((release / "wheels/hello-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert published in text
    (other / "pylock.toml").write_text(text.replace(published, "0" * 64))
    with pytest.raises(EnvironmentFailed) as raised:
        build(other)
    assert "hash" in raised.value.as_text().lower()


def digest(release: Path) -> str:
    return hashlib.sha256((release / "wheels" / "hello-1.0-py3-none-any.whl").read_bytes()).hexdigest()


def hashed_requirements(release: Path, sha256: str) -> None:
    (release / "requirements.txt").write_text(f"hello==1.0 --hash=sha256:{sha256}\n")


def hashed_pylock(release: Path, sha256: str) -> None:
    asked = ("pip", "compile", "-", "--format", "pylock.toml", "--no-index", "--find-links", "wheels")
    uv(release, *asked, "--output-file", "pylock.toml", "--python", sys.executable, input="hello\n")
    text = (release / "pylock.toml").read_text()
    assert digest(release) in text
    (release / "pylock.toml").write_text(text.replace(digest(release), sha256))


def hashed_uv_lock(release: Path, sha256: str) -> None:
    """As if locked from an index: uv puts no hash into the lock for what it finds in a folder."""
    project = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["hello"]\n'
    offline = '[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n'
    (release / "pyproject.toml").write_text(project + offline)
    uv(release, "lock", "--python", sys.executable)
    text = (release / "uv.lock").read_text()
    found = '{ path = "hello-1.0-py3-none-any.whl" }'
    address = (release / "wheels" / "hello-1.0-py3-none-any.whl").as_uri()
    assert found in text
    text = text.replace(found, f'{{ url = "{address}", hash = "sha256:{sha256}" }}')
    (release / "uv.lock").write_text(
        text.replace('registry = "wheels"', 'registry = "https://127.0.0.1/simple"')
    )


@pytest.mark.parametrize("write", [hashed_requirements, hashed_pylock, hashed_uv_lock])
def test_hashes_are_enforced_in_a_clone_too(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    """What is installed already satisfies name and version; it was never held against these hashes."""
    first = make(tmp_path / "v1", None, "1.0")
    write(first, digest(first))
    assert build(first).packages == (("hello", "1.0"),)
    same = make(tmp_path / "v2", None, "1.0")
    write(same, digest(same))
    assert build(same, first).cloned_from == "v1"
    wrong = make(tmp_path / "v3", None, "1.0")
    write(wrong, "0" * 64)
    with pytest.raises(EnvironmentFailed) as raised:
        build(wrong, same, first)
    assert "hash" in raised.value.as_text().lower()


def test_pip_s_words_for_a_wrong_hash_are_explained(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", f"hello==1.0 --hash=sha256:{'0' * 64}\n", "1.0")
    with pytest.raises(EnvironmentFailed) as raised:
        build(release, config=EnvironmentConfig(python=sys.executable, tool="venv"))
    assert "ask the publisher" in (raised.value.advice or "")


def test_a_hash_that_appears_is_held_against_what_is_installed(tmp_path: Path) -> None:
    first = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    build(first)
    second = make(tmp_path / "v2", f"hello==1.0 --hash=sha256:{'0' * 64}\n", "1.0")
    with pytest.raises(EnvironmentFailed, match="uv pip install"):
        build(second, first)
    right = make(tmp_path / "v3", None, "1.0")
    hashed_requirements(right, digest(right))
    assert build(right, first).cloned_from == "v1"


@pytest.mark.parametrize("code", ["def main(): ...\nNEW = 1\n", "def main():\n    print('HELLO')\n"])
def test_another_wheel_of_the_same_version_is_installed(tmp_path: Path, code: str) -> None:
    """F03: of another size or of the same."""
    first = make(tmp_path / "v1", "hello\n", "1.0")
    build(first)
    second = make(tmp_path / "v2", "hello\n", "1.0")
    wheel(second / "wheels", "hello", "1.0", code)
    build(second, first)
    installed = next(second.glob(".venv/lib/*/site-packages/hello/__init__.py"))
    assert code in installed.read_text()


BACKEND = """
import pathlib, zipfile
def build_wheel(folder, *_, **__):
    pathlib.Path('build-was-here').write_text('x')
    name = 'mylib-1.0-py3-none-any.whl'
    with zipfile.ZipFile(pathlib.Path(folder) / name, 'w') as z:
        z.writestr('mylib.py', pathlib.Path('mylib.py').read_text())
        z.writestr('mylib-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: mylib\\nVersion: 1.0\\n')
        z.writestr('mylib-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        z.writestr('mylib-1.0.dist-info/RECORD', '')
    return name
build_editable = build_wheel
"""

OWN = '[project]\nname = "mylib"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'

LOCKED = """version = 1
revision = 3
requires-python = ">=3.11"
[[package]]
name = "app"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "mylib" }]
[package.metadata]
requires-dist = [{ name = "mylib", editable = "libs/mylib" }]
[[package]]
name = "mylib"
version = "1.0"
source = { editable = "libs/mylib" }
"""

APP = (
    '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["mylib"]\n'
    '[tool.uv]\npackage = false\n[tool.uv.sources]\nmylib = { path = "libs/mylib", editable = true }\n'
)


@pytest.mark.parametrize(
    "files",
    [
        {"requirements__txt": "./libs/mylib\n"},
        {"requirements__txt": "libs/mylib\n"},
        {"requirements__txt": "-e ./libs/mylib\n"},
        {"requirements__txt": "mylib @ file:libs/mylib\n"},
        {"requirements__txt": "-r common.in\n", "common__in": "--editable=libs/mylib\n"},
        {"pyproject__toml": APP},
        {"pyproject__toml": APP, "uv__lock": LOCKED},
    ],
    ids=lambda it: "+".join(it),
)
def test_a_library_inside_the_release_is_the_release_s_own(tmp_path: Path, files: dict[str, str]) -> None:
    """F03: its version stays the same while its code does not. Building it leaves nothing in the tree."""
    made = []
    for number in (1, 2):
        release = make(tmp_path / f"v{number}", None, **files)
        (release / "libs" / "mylib").mkdir(parents=True)
        for name, text in (("pyproject.toml", OWN), ("backend.py", BACKEND), ("mylib.py", f"V = {number}\n")):
            (release / "libs" / "mylib" / name).write_text(text)
        build(release, *reversed(made))
        asked = (
            str(release / ".venv/bin/python"),
            "-I",
            "-c",
            "import mylib; print(mylib.V, mylib.__file__)",
        )
        version, where = says(tmp_path, *asked).split(" ", 1)
        assert (version, Path(where).is_relative_to(release / ".venv")) == (str(number), True)
        assert not list(release.rglob("build-was-here")) and not list(release.rglob(".tmp-*"))
        made.append(release)


@pytest.mark.parametrize("text", ["[[[", "a = " + "[" * 5000, "[project]\nname = '\x00'"])
def test_a_project_file_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    release = make(tmp_path / "v1", None, pyproject__toml=text)
    with pytest.raises(EnvironmentFailed, match=r"pyproject\.toml in the release cannot be read"):
        build(release)


@pytest.mark.parametrize(
    "line",
    ["../mylib", "-e /srv/mylib", "mylib @ file:///srv/mylib", "-r ../other.txt", "~/mylib", "./${WHERE}"],
)
def test_what_lies_outside_the_release_is_refused(tmp_path: Path, line: str) -> None:
    release = make(tmp_path / "v1", f"{line}\n")
    with pytest.raises(EnvironmentFailed, match="outside the release") as raised:
        build(release)
    assert raised.value.advice


def test_a_build_does_not_get_to_see_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build backends are code from strangers."""
    monkeypatch.setenv("MY_TOKEN", "ghp_secret")
    release = make(tmp_path / "v1", "./libs/mylib\n")
    (release / "libs" / "mylib").mkdir(parents=True)
    (release / "libs/mylib/pyproject.toml").write_text(OWN)
    (release / "libs/mylib/mylib.py").write_text("")
    (release / "libs/mylib/backend.py").write_text(
        "import os\nassert 'MY_TOKEN' not in os.environ, 'seen'\n" + BACKEND
    )
    with pytest.raises(EnvironmentFailed, match="exit code"):
        build(release)
    assert build(release, secrets=["MY_TOKEN"]).packages == (("mylib", "1.0"),)


@pytest.mark.parametrize("tool", ["uv", "venv"])
def test_a_project_is_installed_with_its_scripts_and_the_tree_stays_as_it_was(
    tmp_path: Path, tool: str
) -> None:
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    code = (
        "import pathlib, zipfile\n"
        "def build_wheel(folder, *_, **__):\n"
        "    pathlib.Path('build-was-here').write_text('x')\n"
        "    name = 'proj-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(pathlib.Path(folder) / name, 'w') as z:\n"
        "        z.writestr('proj.py', 'def main():\\n    print(\"proj runs\")\\n')\n"
        "        z.writestr('proj-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: proj\\nVersion: 1.0\\n')\n"
        "        z.writestr('proj-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        z.writestr('proj-1.0.dist-info/entry_points.txt', '[console_scripts]\\nproj = proj:main\\n')\n"
        "        z.writestr('proj-1.0.dist-info/RECORD', '')\n"
        "    return name\n"
    )
    release = make(
        tmp_path / "v1",
        None,
        pyproject__toml=f'[project]\nname = "proj"\nversion = "1.0"\n{backend}',
        backend__py=code,
    )
    build(release, config=EnvironmentConfig(python=sys.executable, tool=tool))
    assert says(release, str(release / ".venv/bin/proj")) == "proj runs"
    assert not (release / "build-was-here").exists()


def test_a_build_that_cannot_be_says_what_the_installer_said(tmp_path: Path) -> None:
    """F38."""
    release = make(tmp_path / "v1", "hello==9.9\n", "1.0")
    with pytest.raises(EnvironmentFailed, match="exit code 1") as raised:
        build(release)
    assert "hello" in "\n".join(raised.value.details) and raised.value.advice


def test_a_build_is_cancelled_and_leaves_no_process(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")

    def check() -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        build(release, check=check)


def test_a_python_that_does_not_fit_is_told_with_those_there_are(tmp_path: Path) -> None:
    release = make(
        tmp_path / "v1",
        None,
        pyproject__toml='[project]\nname = "x"\nversion = "1"\nrequires-python = ">=4.5"\n',
    )
    with pytest.raises(EnvironmentFailed, match=r"requires-python '>=4.5'") as raised:
        build(release, config=EnvironmentConfig())
    assert "3." in raised.value.details[0]


def test_a_rebuild_that_fails_puts_the_old_environment_back(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    record = build(release)
    before = snapshot(release / ".venv")
    (release / "requirements.txt").write_text("hello==9.9\n")
    with pytest.raises(EnvironmentFailed):
        environments.rebuild(release, HERE)
    assert snapshot(release / ".venv") == before
    assert environments.problem_of(release, record.as_json()) is None


def test_a_rebuild_leaves_the_environment_in_place_until_the_new_one_is_whole(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    build(release)
    before, python = snapshot(release / ".venv"), str(release / ".venv" / "bin" / "python")
    seen: list[str] = []
    environments.rebuild(release, HERE, check=lambda: seen.append(says(release, python, "app.py")))
    assert set(seen) == {"1.0"}
    after = snapshot(release / ".venv")
    changed = {name for name in before if before[name] != after.get(name)}
    assert all(name.endswith(".pyc") for name in changed), "nothing else tells when or where it was built"
    assert says(release, str(release / ".venv" / "bin" / "hello")) == "hello"
    where = says(release, python, "-c", "import hello; print(hello.main.__code__.co_filename)")
    assert where.startswith(str(release / ".venv")), "nor what is seen of those"
    assert sorted(os.listdir(release / ".release")) == ["release.json", "venv.old"]


def test_a_rebuild_killed_half_way_is_put_right(tmp_path: Path) -> None:
    release = make(tmp_path / "v1", "hello==1.0\n", "1.0")
    build(release)
    before = snapshot(release / ".venv")
    (release / ".venv").rename(release / ".release" / "venv.old")
    (release / ".venv").mkdir()
    environments.restore(release)
    environments.restore(release)
    assert snapshot(release / ".venv") == before


@pytest.mark.parametrize(
    ("files", "kind", "names"),
    [
        ({}, "none", ()),
        ({"requirements.txt": "x"}, "requirements", ("requirements.txt",)),
        ({"requirements-dev.txt": "x"}, "none", ()),
        (
            {"requirements-prod.txt": "x", "requirements-dev.txt": "x"},
            "requirements",
            ("requirements-prod.txt",),
        ),
        ({"pylock.toml": "x", "requirements.txt": "x"}, "pylock", ("pylock.toml",)),
        ({"uv.lock": "x", "pyproject.toml": "[project]\nname='x'"}, "uv.lock", ("uv.lock", "pyproject.toml")),
        ({"pyproject.toml": "[build-system]\nrequires=[]"}, "project", ()),
        ({"pyproject.toml": "[project]\ndependencies=['a']"}, "requirements", ("pyproject.toml",)),
        ({"pyproject.toml": "[tool.ruff]"}, "none", ()),
        ({"setup.py": ""}, "project", ()),
        ({"pyproject.toml": "project = 3\ntool = 'x'"}, "none", ()),
        (
            {"pyproject.toml": "[project]\nrequires-python = 3\n[tool]\nuv = [1]\n[build-system]"},
            "project",
            (),
        ),
    ],
)
def test_what_a_release_brings_is_found(
    tmp_path: Path, files: dict[str, str], kind: str, names: tuple[str, ...]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = requirements.find(tmp_path)
    assert (found.kind, found.files) == (kind, names)
