"""`verify` against what Python runs without anybody asking: bytecode, and installed packages. Real releases, real edits."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_environments import wheel
from tests.site import Site
from updater.environments import bytecode


def module(release: Path) -> str:
    """What the release's own Python says of its module `helper`."""
    code = "import sys; sys.path.insert(0, '.'); import helper; print(helper.X)"
    python = release / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], cwd=release, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def tampered(compiled: Path) -> None:
    """Other code behind the same header: Python still takes it for the source's own."""
    header = compiled.read_bytes()[:16]
    compiled.unlink()
    compiled.write_bytes(header + marshal.dumps(compile("X = 666\n", "helper.py", "exec")))


@pytest.fixture
def release(site: Site) -> Path:
    """A deployed release with a module that is compiled. Built with the Python of the tests, which makes the bytecode."""
    site.configure(extra=f'\n[environment]\npython = "{sys.executable}"\n')
    site.publish("v1.0.0", files={"helper.py": "X = 1\n"})
    assert site.updater("deploy").code == 0
    return site.layout.release("v1.0.0")


def test_bytecode_that_was_changed_is_told_and_not_put_into_service(site: Site, release: Path) -> None:
    tampered(next(release.glob("__pycache__/helper.*.pyc")))
    assert module(release) == "666"
    verified = site.updater("verify")
    assert verified.code == 7 and "__pycache__/helper" in verified.text
    site.deployed("v1.1.0")
    refused = site.updater("rollback")
    assert refused.code == 7 and "fetch --rebuild v1.0.0 --force" in refused.text
    site.runs("v1.1.0")
    assert site.updater("fetch", "--rebuild", "v1.0.0", "--force").code == 0, "made anew from the sources"
    assert site.updater("rollback").code == 0
    assert (module(release), site.updater("verify").code) == ("1", 0)


def test_bytecode_that_appears_is_told_if_the_release_s_python_would_run_it(
    site: Site, release: Path
) -> None:
    compiled = next(release.glob("__pycache__/helper.*.pyc"))
    compiled.unlink()
    assert site.updater("verify").code == 0, "Python does without"
    foreign = compiled.with_name("helper.cpython-27.pyc")
    foreign.write_bytes(b"from another Python, run by hand")
    assert site.updater("verify").code == 0
    compiled.with_name("serve.cpython-27.pyc").symlink_to(foreign)
    assert site.updater("verify").code == 7
    compiled.with_name("serve.cpython-27.pyc").unlink()
    compiled.with_name(compiled.name.replace("helper", "behaviour")).write_bytes(b"planted")
    assert site.updater("verify").code == 7


def test_changed_bytecode_is_not_shared_with_the_next_release(site: Site, release: Path) -> None:
    site.publish("v1.1.0", files={"helper.py": "X = 1\n"})
    site.publish("v1.2.0", files={"helper.py": "X = 1\n"})
    assert site.updater("deploy", "v1.1.0").code == 0
    second = site.layout.release("v1.1.0")
    assert next(second.glob("__pycache__/helper.*.pyc")).samefile(
        next(release.glob("__pycache__/helper.*.pyc"))
    )
    for path in (release, second):
        tampered(next(path.glob("__pycache__/helper.*.pyc")))
    assert site.updater("deploy", "v1.2.0").code == 0
    assert module(site.layout.release("v1.2.0")) == "1"
    assert site.updater("verify", "v1.2.0").code == 0


def test_published_bytecode_stays_as_it_was_published(site: Site) -> None:
    site.configure(extra=f'\n[environment]\npython = "{sys.executable}"\n')
    tag = sys.implementation.cache_tag
    site.publish("v1.0.0", files={"helper.py": "X = 1\n", f"__pycache__/helper.{tag}.pyc": "as published"})
    assert site.updater("deploy").code == 0
    release = site.layout.release("v1.0.0")
    published = release / "__pycache__" / f"helper.{tag}.pyc"
    assert published.read_text() == "as published"
    assert site.updater("verify").code == 0
    sums = subprocess.run(
        ["sha256sum", "-c", "--quiet", ".release/SHA256SUMS"],
        cwd=release,
        capture_output=True,
        text=True,
        check=False,
    )
    assert sums.returncode == 0, sums.stdout
    published.chmod(0o644)
    published.write_text("as modified!")
    assert site.updater("verify").code == 7


def test_a_rebuild_that_is_undone_leaves_no_bytecode_that_is_not_on_record(site: Site, release: Path) -> None:
    before = bytecode.recorded(release)
    assert [it for it in before if "helper" in it]
    tampered(next(release.glob("__pycache__/helper.*.pyc")))
    bytecode.sweep(release)
    assert not list(release.glob("__pycache__/helper.*.pyc"))
    assert list(release.glob("__pycache__/serve.*.pyc")), "what is as recorded stays"


def test_an_installed_file_with_other_content_is_named(site: Site, tmp_path: Path) -> None:
    """Same name, size and time: only its content tells, and the package's own RECORD knows that."""
    source = tmp_path / "artifacts"
    source.mkdir()
    site.configure(source=f'type = "directory"\npath = "{source}"')
    tree = tmp_path / "app-1.0.0"
    wheel(tree / "wheels", "hello", "1.0")
    for name, (content, _) in site.publish("1.0.0").tree.items():
        (tree / name).write_bytes(content)
    (tree / "requirements.txt").write_text("hello\n")
    subprocess.run(["tar", "-czf", source / "app-1.0.0.tar.gz", "app-1.0.0"], cwd=tmp_path, check=True)
    assert site.updater("deploy").code == 0
    assert site.updater("verify").code == 0
    victim = next(site.layout.release("1.0.0").glob(".venv/lib/*/site-packages/hello/__init__.py"))
    seen = victim.stat()
    victim.chmod(0o644)
    victim.write_text(victim.read_text().replace("hello", "HELLO"))
    os.utime(victim, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    verified = site.updater("verify")
    assert verified.code == 7 and "hello/__init__.py" in verified.text
