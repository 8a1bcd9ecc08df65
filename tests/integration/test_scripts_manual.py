"""A release comes into service by a shell alone, and is one like any other to updater afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.emergency import SCRIPTS, SHELLS, call, command, run, toolbox
from tests.site import Done, Site, eventually, tree

RUN = "manual_update.sh"


def with_uv(place: Path) -> Path:
    """Tools with uv, which makes an environment in a tenth of the time."""
    made = toolbox(place)
    (made / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    return made


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_uv(tmp_path_factory.mktemp("tools") / "bin")


def update(tools: Path, site: Site, *arguments: str, **env: str) -> Done:
    return run(tools, RUN, *arguments, "--yes", "--root", str(site.root), **env)


def release(site: Site, version: str) -> Any:
    return json.loads((site.layout.release(version) / ".release" / "release.json").read_text())


def test_from_github_and_updater_takes_it_for_its_own(site: Site, tools: Path) -> None:
    site.deployed("v1")
    site.publish(
        "v2", files={"wheels/.keep": "", "data/shipped": "by the release", "sp ace/ünï": "x", "-": "dash"}
    )
    done = update(tools, site, "v2")
    print(done.text)
    assert done.code == 0, done.text
    site.runs("v2")
    site.is_clean()
    record = site.history()[-1]
    assert (record["kind"], record["from"], record["to"], record["outcome"]) == (
        "deploy",
        "v1",
        "v2",
        "succeeded",
    )
    verified = site.updater("--json", "verify", "v2")
    assert verified.code == 0 and verified.json[0]["sound"], verified.text
    assert record["id"] and "tree of commit" in release(site, "v2")["proof"]
    assert "nothing to do" in site.updater("deploy", "v2").text
    by_shell = release(site, "v2"), *sums(site, "v2")
    # the same by updater itself
    assert site.updater("rollback").code == 0
    site.runs("v1")
    shutil.move(site.layout.release("v2"), site.place / "aside")
    done = site.updater("deploy", "v2")
    assert done.code == 0, done.text
    by_updater = release(site, "v2"), *sums(site, "v2")
    for key in (
        "digest",
        "tree",
        "commit",
        "artifact",
        "source",
        "version_file",
        "files",
        "size",
        "tag",
        "proof",
    ):
        assert by_shell[0][key] == by_updater[0][key], key
    assert by_shell[1:] == by_updater[1:]
    assert update(tools, site, "v2").out.count("nothing to do") == 1


def sums(site: Site, version: str) -> tuple[str, ...]:
    records = site.layout.release(version) / ".release"
    return tuple((records / name).read_text() for name in ("manifest", "SHA256SUMS", "links.json"))


def archive(place: Path, files: dict[str, str], *members: tarfile.TarInfo, top: str = "app/") -> Path:
    """An artifact as a publisher makes it."""
    with tarfile.open(place, "w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}{name}")
            member.size = len(text.encode())
            made.addfile(member, BytesIO(text.encode()))
        for member in members:
            made.addfile(member)
    return place


def test_a_name_that_is_an_option_of_tar_runs_nothing(empty: Site, tools: Path) -> None:
    ran = empty.place / "ran"
    words = "--use-compress-program=sh -c 'touch ran' ./VERSION"
    made = archive(empty.place / "app.tar.gz", {words: "1\n", "z": "z" * 50_000}, top="")
    done = subprocess.run(
        command(RUN, str(made), "--dry-run", "--root", str(empty.root)), env={"PATH": str(tools)}, cwd=empty.place,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0 and not ran.exists(), done


def test_the_newest_is_that_of_the_highest_version(empty: Site, tools: Path) -> None:
    """As for updater: a correction of an old line that is published later is no update."""
    for tag in ("v1.9.0", "v1.10.0", "v2.0.0-rc.1", "nightly", "v1.9.1"):
        empty.publish(tag, prerelease=False)
    empty.publish("v3.0.0", draft=True)
    empty.publish("v2.0.0", prerelease=True)
    assert "v1.10.0, from" in update(tools, empty, "--dry-run").out
    empty.configure(source=f'{empty_source(empty)}\nchannel = "prerelease"')
    done = update(tools, empty, "--dry-run")
    assert "v2.0.0, from" in done.out, done.text
    told = call(
        tools, empty.root,
        f'. "{SCRIPTS}/lib_release.sh"; work=$root token=; api "file://$root/updater.toml" "$root/taken"; say $?',
    )  # fmt: skip
    assert told.out == "1\n" and not (empty.root / "taken").exists(), told.text


def empty_source(site: Site) -> str:
    return f'repository = "example/app"\napi_url = "{site.server.api_url}"'


def test_what_is_started_is_what_is_configured_now(site: Site, tools: Path) -> None:
    """A release that was in service before has launchers and a configuration of that time."""
    site.deployed("v1", "v2")
    assert site.updater("rollback").code == 0
    wait = 'command = ["python", "-c", "import time; time.sleep(600)"]'
    old = site.layout.config.read_text()
    text = old.replace(
        "[shared]",
        f'[processes]\nextra = {{ {wait[:7]} = {wait[10:]}, env = {{ NOTE = "a\\nversion=b" }} }}\n[shared]\n"lögs" = "lögs"',
    )
    site.layout.config.write_text(text)
    done = site.updater("restart")
    assert done.code == 0, done.text
    done = update(tools, site, "v2")
    assert done.code == 0, done.text
    seen = {(it["name"], it["state"], it["release"]) for it in site.status()["processes"]}
    assert seen == {("web", "running", "v2"), ("extra", "running", "v2")}
    [extra] = site.running("time.sleep(600)")
    assert extra.environ()["NOTE"] == "a\nversion=b"
    # what could not be started is not stopped
    aside = site.place / "aside"
    (site.layout.launchers / "v2" / "web").rename(aside)
    done = update(tools, site, "v1")
    assert done.code == 3 and "how to start web again" in done.err, done.text
    aside.rename(site.layout.launchers / "v2" / "web")
    assert update(tools, site, "--root=").code == 2
    site.layout.config.write_text(f'migrate = {{ command = ["true"] }}\n{text}')
    assert "--skip-migrate" in update(tools, site, "v1").err
    site.layout.config.write_text(text)
    done = run(tools, "emergency_rollback.sh", "--yes", "--root", str(site.root))
    assert done.code == 0, done.text
    seen = {(it["name"], it["state"], it["release"]) for it in site.status()["processes"]}
    assert seen == {("web", "running", "v1"), ("extra", "running", "v1")}


def test_it_goes_back_although_who_reads_it_is_gone(site: Site, tools: Path) -> None:
    """`… | tee log`, and Ctrl-C, which ends both."""
    site.configure(watch=60)
    site.publish("v1")
    site.publish("v2")
    (site.layout.config).write_text(site.layout.config.read_text().replace("watch = 60", "watch = 0"))
    assert site.updater("deploy", "v1").code == 0
    site.configure()
    with subprocess.Popen(
        command(RUN, "v2", "--yes", "--root", str(site.root)), env={"PATH": str(tools)}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("16 watch"):
                break
        running.stdout.close()
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 130
    site.runs("v1")
    site.is_clean()


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


HOSTILE = {
    "a name with ..": member("app/../../out", tarfile.REGTYPE),
    "an absolute name": member("/absolute", tarfile.REGTYPE),
    "no release holds": member("app/pipe", tarfile.FIFOTYPE),
    "leads out of the release": member("app/link", tarfile.SYMTYPE, "../.."),
    "an absolute target": member("app/link", tarfile.SYMTYPE, "/etc/passwd"),
    "in circles": member("app/link", tarfile.SYMTYPE, "link/x"),
    "what is no directory": member("app/serve.py/below", tarfile.REGTYPE),
    "the same name twice": member("app/serve.py", tarfile.REGTYPE),
    "only in case": member("app/Serve.py", tarfile.REGTYPE),
    "belongs to updater": member("app/.Venv/x", tarfile.REGTYPE),
    "a hard link": member("app/hard", tarfile.LNKTYPE, "app/nothing"),
}


@pytest.fixture
def empty(site: Site) -> Site:
    """A root in which nothing is installed, that names the Python to build with."""
    site.configure(extra=f'[environment]\npython = "{sys._base_executable}"\n')
    return site


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_release_may_not_hold_is_refused_before_anything_is_unpacked(
    tmp_path: Path, tools: Path, shell: str
) -> None:
    places = tmp_path / "archives"
    places.mkdir()
    for number, (why, bad) in enumerate(HOSTILE.items()):
        more = [member("app/one", tarfile.SYMTYPE, "two/.."), member("app/two", tarfile.SYMTYPE, "x/../..")]
        archive(places / f"{number}.tar.gz", {"serve.py": ""}, *(more if "leads out" in why else ()), bad)
    archive(
        places / "good.tar.gz",
        {"a -> b": "", "VERSION": "1"},
        member("app/l", tarfile.SYMTYPE, "sub/../VERSION"),
    )
    told = call(
        tools, tmp_path,
        f"""
        . "{SCRIPTS}/lib_backup.sh"; . "{SCRIPTS}/lib_release.sh"; work=$root
        go_back() {{ say "$2"; exit "$1"; }}
        for artifact in "$root"/archives/*.tar.gz; do
            artifact_name=x
            (check_archive); say "${{artifact##*/}} $?"
        done
        """,
        shell=shell,
    )  # fmt: skip
    assert "good.tar.gz 0" in told.out, told.text
    for number, why in enumerate(HOSTILE):
        assert f"{number}.tar.gz 7" in told.out and why in told.out, (why, told.text)


def test_a_file_is_installed_and_updater_goes_on_with_it(empty: Site, tools: Path) -> None:
    files = {name: content.decode() for name, (content, _) in tree("v1").items()}
    made = archive(empty.place / "app-v1.tar.gz", files)
    raw = subprocess.run(["gzip", "-dc", made], capture_output=True, check=True).stdout
    file = empty.place / "app-v1.tar.zst"
    subprocess.run(["zstd", "-q", "-o", file], input=raw, check=True)
    beside = empty.place / "app-v1.tar.zst.sha256"
    beside.write_text("0" * 64 + "  app-v1.tar.zst\n")
    done = update(tools, empty, str(file), "--install-only")
    assert done.code == 7 and "differs from app-v1.tar.zst.sha256" in done.err
    beside.unlink()
    asked = run(tools, RUN, str(file), "--root", str(empty.root))
    assert asked.code == 2 and not list(empty.layout.releases.iterdir()), asked.text
    beside.write_text(hashlib.sha256(file.read_bytes()).hexdigest() + "\n")
    wrong = update(tools, empty, str(file), "--tag", "v9")
    assert wrong.code == 7 and "its tag is v9" in wrong.err, wrong.text
    done = update(tools, empty, str(file), "--install-only")
    assert done.code == 0, done.text
    assert empty.updater("verify", "v1").code == 0
    done = empty.updater("activate", "v1")
    assert done.code == 0, done.text
    empty.runs("v1")
    assert release(empty, "v1")["digest"] in empty.updater("--json", "releases").out
    # and what bars the way
    assert "nothing to do" in update(tools, empty, str(file)).out
    again = update(
        tools, empty, str(made)
    )  # the same content in another form, which nothing but the content tells
    assert again.code == 0 and "with the same content" in again.out, again.text
    changed = archive(empty.place / "app-1.tar.gz", {**files, "behaviour": "good"})
    assert update(tools, empty, str(changed)).code == 7
    empty.runs("v1")
    assert empty.updater("hold", "--reason", "it is night").code == 0
    held = update(tools, empty, str(file))
    assert held.code == 3 and "it is night" in held.err
    empty.updater("release-hold")
    empty.configure(extra='[migrate]\ncommand = ["true"]\n')
    other = archive(empty.place / "app-v2.tar.gz", {**files, "VERSION": "v2"})
    assert "--skip-migrate" in update(tools, empty, str(other)).err
    empty.runs("v1")


def test_a_sick_release_gives_way_to_the_old_one(site: Site, tools: Path) -> None:
    site.deployed("v1")
    site.publish("v2", "crash")
    done = update(tools, site, "v2")
    assert done.code == 4, done.text
    site.runs("v1")
    site.is_clean()
    assert (site.layout.marks / "v2.bad").exists() and site.history()[-1]["outcome"] == "rolled-back"
    assert update(tools, site, "v2").code == 3


KILLER = """#!/bin/sh
case "$*" in *"$KILL_ON"*) kill -9 0 ;; esac
exec {mv} "$@"
"""


def test_killed_and_recovered_by_updater_or_by_itself(site: Site, tools: Path, tmp_path: Path) -> None:
    site.deployed("v1")
    site.publish("v2")
    deadly = with_uv(tmp_path / "deadly")
    (deadly / "mv").unlink()
    (deadly / "mv").write_text(KILLER.format(mv=shutil.which("mv")))
    (deadly / "mv").chmod(0o755)

    def killed(on: str) -> None:
        done = subprocess.run(
            command(RUN, "v2", "--yes", "--root", str(site.root)), env={"PATH": str(deadly), "KILL_ON": on},
            capture_output=True, text=True, check=False, start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == -9, done

    killed("releases/.tmp-unpack-")  # on its way to its place
    killed("/current ")  # the old release is stopped, the new one installed
    assert site.current() == "v1" and site.answer() is None
    recovered = site.updater("recover")
    assert recovered.code == 0 and "rolled back" in recovered.text, recovered.text
    site.runs("v1")
    site.is_clean()
    killed("/good ")  # at its commit
    assert site.current() == "v2"
    done = update(tools, site, "v2")
    assert done.code == 0, done.text
    site.runs("v2")
    assert site.updater("recover").code == 0  # sweeps temporary names
    site.is_clean()


HANGS = """
import os, time
with open(os.path.join(os.environ["HANGS"], "hangs"), "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_that_hangs_is_ended_with_its_script(site: Site, tmp_path: Path, how: signal.Signals) -> None:
    tools = with_uv(tmp_path / "bin")
    site.deployed("v1")
    project = '[build-system]\nrequires = []\nbuild-backend = "hangs"\nbackend-path = ["."]\n'
    site.publish(
        "v2", files={"pyproject.toml": f"{project}[project]\nname = 'x'\nversion = '1'\n", "hangs.py": HANGS}
    )
    with subprocess.Popen(
        command(RUN, "v2", "--yes", "--root", str(site.root)), env={"PATH": str(tools), "HANGS": str(tools)}, cwd="/", start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        eventually((tools / "hangs").exists, "it is built")
        os.kill(running.pid, how)
        assert running.wait(20) == (130 if how == signal.SIGTERM else -9)
    if how == signal.SIGKILL:
        recovered = site.updater("recover")
        assert recovered.code == 0, recovered.text
    hangs = int((tools / "hangs").read_text())
    eventually(
        lambda: not psutil.pid_exists(hangs) or psutil.Process(hangs).status() == "zombie", "it is ended"
    )
    site.runs("v1")
    site.is_clean()
    assert not site.layout.release("v2").exists() and site.history()[-1]["outcome"] in ("failed", "cancelled")


def wheel(name: str) -> str:
    """A package as a publisher ships it, in Latin-1."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr(f"{name}.py", "VALUE = 1\n")
        file.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        file.writestr(
            f"{name}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{name}-1.0.dist-info/RECORD", f"{name}.py,,\n")
    return made.getvalue().decode("latin-1")


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_what_the_release_asks_for_is_installed(empty: Site, tmp_path: Path, tool: str) -> None:
    tools = with_uv(tmp_path / "bin") if tool == "uv" else toolbox(tmp_path / "bin")
    folder = empty.place / "artifacts"
    folder.mkdir()
    empty.configure(source='type = "directory"\npath = "../artifacts"')
    with tarfile.open(folder / "app-1.0.tar.gz", "w:gz") as made:
        for name, text in {
            "requirements.txt": "tiny==1.0\n",
            "wheels/tiny-1.0-py3-none-any.whl": wheel("tiny"),
        }.items():
            about = tarfile.TarInfo(f"app/{name}")
            about.size = len(text.encode("latin-1"))
            made.addfile(about, BytesIO(text.encode("latin-1")))
    done = update(tools, empty, "1.0", "--install-only")
    assert done.code == 0, done.text
    environment = release(empty, "1.0")["environment"]
    assert ["tiny", "1.0"] in environment["packages"] and environment["tool"] == (
        "uv" if tool == "uv" else "venv"
    )
    verified = empty.updater("verify", "1.0")
    assert verified.code == 0, verified.text
    assert "is installed already" in empty.updater("fetch", "1.0").text
