"""Processes and probes: real programs, real signals, launchers that a shell can run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.site import eventually, free_port
from updater import health, lock
from updater.config import Config, HealthConfig, ProbeConfig, ProcessConfig
from updater.deployment.cancel import Cancellation
from updater.errors import Cancelled, HealthFailed, PreflightFailed, ProcessFailed
from updater.health.probes import Answer, Subject, ask
from updater.layout import Layout
from updater.processes import control, launcher, proof, state
from updater.subprocesses import Identity, as_lines, read_fields

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
SHELLS = [name for name in ("dash", "bash", "busybox", "mksh", "zsh") if shutil.which(name)]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A root in a place with a space and a quote in its name, with releases v1 and v2 that have a Python of their own."""
    made = Layout(tmp_path / "it's a root")
    for version in ("v1", "v2"):
        own = made.release(version) / ".venv" / "bin"
        own.mkdir(parents=True)
        (own / "python").symlink_to(sys.executable)
    made.run.mkdir(parents=True)
    made.logs.mkdir(parents=True)
    yield made
    control.force_stop(made)
    left = [it for it in psutil.process_iter() if _belongs(it, tmp_path)]
    for process in left:
        process.kill()
    assert left == [], "a process was left behind"


def _belongs(process: psutil.Process, place: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and str(place) in " ".join(
            [process.cwd(), *process.cmdline()]
        )
    return False


def config(
    layout: Layout, *command: str, code: str | None = None, version: str = "v1", **about: object
) -> Config:
    if code is not None:
        (layout.release(version) / "app.py").write_text(code)
    process = ProcessConfig("app", command or ("python", "app.py"), stop_timeout=1, **about)  # type: ignore[arg-type]
    return Config(layout.config, processes={"app": process}, health=HealthConfig(2, 0.05, 2, 0.5))


def _patient(settings: Config) -> Config:
    """For processes that die: longer alive than any machine needs to get there is no health."""
    return replace(settings, health=HealthConfig(successes=10**6, interval=0.05, timeout=60))


def test_a_process_is_started_recorded_proved_and_stopped(layout: Layout) -> None:
    settings = config(layout, code=SLEEP, env={"ODD": "a b'c\"d$e\nf", "EMPTY": ""})
    (one,) = control.start(layout, settings, "v1")
    assert one == state.find(layout, "app")
    seen = psutil.Process(one.identity.pid)
    assert seen.environ()["ODD"] == "a b'c\"d$e\nf" and seen.environ()["UPDATER_RELEASE"] == "v1"
    assert os.getsid(one.identity.pid) == one.identity.pid, "a session of its own"
    proof.prove(layout, settings, "v1", ["app"])
    assert proof.in_use(layout) == {"v1"}
    with pytest.raises(ProcessFailed, match="does not run from v2"):
        proof.prove(layout, settings, "v2", ["app"])
    assert control.start(layout, settings, "v1") == [one], "what runs is left alone"
    assert control.stop(layout, settings, ["app"]) == ["app"]
    assert state.find(layout, "app") is None and not layout.pid_file("app").exists()


def test_a_process_hears_its_polite_signal_whoever_started_updater(layout: Layout) -> None:
    """A script's ``&`` ignores SIGINT, ``nohup`` and a deployment's worker SIGHUP; what is ignored is inherited."""
    settings = config(layout, code=SLEEP, stop_signal="INT")
    settings = replace(settings, processes={"app": replace(settings.processes["app"], stop_timeout=60)})
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        (one,) = control.start(layout, settings, "v1")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    eventually(lambda: "up" in state.last_lines(layout, "app"), "it sleeps")
    begun = time.monotonic()
    assert control.stop(layout, settings, ["app"]) == ["app"] and time.monotonic() - begun < 30
    assert "KeyboardInterrupt" in layout.process_log("app").read_text()
    assert not one.identity.alive()  # its zombie may wait for its parent, which is this very process


def test_a_forced_stop_needs_no_writable_disk(
    layout: Layout, mount: Callable[[str, Path | None], Path]
) -> None:
    control.start(layout, config(layout, code=SLEEP), "v1")
    place = mount("read-only", layout.root)
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    assert control.force_stop(Layout(place)) == ["app"]
    assert state.find(layout, "app") is None
    with pytest.raises(PreflightFailed, match="Read-only") as refused, lock.hold(Layout(place), "stop"):
        pass
    assert "force-stop" in refused.value.as_text(), "what there is to do all the same"


def test_a_process_started_through_the_link_is_found_out(layout: Layout) -> None:
    """F20: it would import the other release's modules after the swap."""
    layout.current.symlink_to("releases/v1")
    settings = config(layout, code=SLEEP)
    process = subprocess.Popen(
        [layout.current / ".venv/bin/python", "app.py"],
        cwd=layout.current,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: "app.py" in psutil.Process(process.pid).cmdline(), "it is the application by now")
        identity = eventually(lambda: Identity.of(process.pid), "it runs")
        layout.pid_file("app").write_text(
            as_lines({**identity.as_fields(), "release": "v1", "process": "app"})
        )
        with pytest.raises(ProcessFailed, match="does not run from v1") as raised:
            proof.prove(layout, settings, "v1", ["app"])
        assert "through the link" in raised.value.as_text()
    finally:
        process.kill()
        process.wait()


def test_a_recycled_pid_is_never_signalled(layout: Layout) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        mine = Identity.mine()
        layout.pid_file("app").write_text(
            as_lines({"pid": bystander.pid, "start": "1", "boot": mine.boot, "release": "v1"})
        )
        settings = config(layout, code=SLEEP)
        assert control.stop(layout, settings, ["app"]) == [] and control.force_stop(layout) == []
        assert bystander.poll() is None
        for rubbish in ("", "pid=abc\n", "pid=1\nstart=1\nboot=x\n", "\0\0", "pid=-1\nstart=1\nboot=x\n"):
            layout.pid_file("app").write_text(rubbish)
            assert state.running(layout) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_the_application_never_inherits_the_lock(layout: Layout) -> None:
    """F17."""
    settings = config(layout, code=SLEEP)
    with lock.hold(layout, "deploy"):
        control.start(layout, settings, "v1")
    with lock.hold(layout, "prune"):
        assert state.find(layout, "app") is not None


def test_the_application_does_not_get_the_token_of_the_source(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    monkeypatch.setenv("OTHER", "stays")
    settings = config(layout, code=SLEEP)
    [running] = control.start(layout, settings, "v1")
    seen = psutil.Process(running.identity.pid).environ()
    assert ("GITHUB_TOKEN" in seen, seen["OTHER"]) == (False, "stays")
    control.stop(layout, settings, ["app"])
    asked = config(layout, code=SLEEP, env={"GITHUB_TOKEN": "its own"})
    [running] = control.start(layout, asked, "v1")
    assert psutil.Process(running.identity.pid).environ()["GITHUB_TOKEN"] == "its own"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_launcher_run_by_hand_is_the_same_start(layout: Layout, shell: str) -> None:
    """The very file that a shell uses when nothing else works; it keeps no lock that the shell holds."""
    settings = config(layout, code=SLEEP)
    script = launcher.write(layout, settings.processes["app"], "v1")
    words = _words(shell)
    held = layout.root / "held"
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started = subprocess.Popen(
            [*words, script], cwd="/", start_new_session=True, stdin=subprocess.DEVNULL, close_fds=False,
            preexec_fn=lambda: os.dup2(file.fileno(), 9, inheritable=True),  # where `flock 9` in a script has it
        )  # fmt: skip
    one = eventually(lambda: state.find(layout, "app"), "it runs")
    with held.open("w") as file:
        eventually(lambda: not _is_locked(file.fileno()), "the lock is free")
    proof.prove(layout, settings, "v1", ["app"])
    assert one.identity == Identity.of(one.identity.pid), "what the shell recorded is what updater computes"
    again = subprocess.run([*words, script], capture_output=True, text=True, check=False, cwd="/")
    assert again.returncode == 1 and "is running already" in again.stderr
    assert control.stop(layout, settings, ["app"]) == ["app"]
    started.wait()


def test_a_process_and_its_probes_see_the_same_variables_and_programs(layout: Layout) -> None:
    """The interpreter of the release stays the first on the PATH, whatever ``env`` adds, and ``sub/tool`` lies in it."""
    tools = layout.root / "tools"
    tools.mkdir()
    text = (
        "#!/bin/sh\n{ echo $PATH; echo $VIRTUAL_ENV; echo $PYTHONDONTWRITEBYTECODE $KEY $(pwd); } >>../seen\n"
    )
    tool = layout.release("v1") / "sub" / "tool"
    tool.parent.mkdir()
    tool.write_text(text + 'if [ "${1-}" = stay ]; then exec /bin/sleep 600; fi\n')
    tool.chmod(0o755)
    env = {"PATH": str(tools), "VIRTUAL_ENV": "/x", "PYTHONDONTWRITEBYTECODE": "", "KEY": "k"}
    probe = ProbeConfig("command", command=("sub/tool",))
    settings = config(layout, "sub/tool", "stay", env=env, cwd="sub", probes=(probe,))
    control.start(layout, settings, "v1")
    seen = layout.release("v1") / "seen"
    eventually(lambda: seen.exists() and len(seen.read_text().splitlines()) == 3, "it has told")
    assert ask(Subject(layout, settings.processes["app"], "v1"), probe).ok
    process, probed = seen.read_text().splitlines()[:3], seen.read_text().splitlines()[3:]
    own = layout.release("v1") / ".venv"
    assert process == [f"{own}/bin:{env['PATH']}", str(own), f"1 k {layout.release('v1')}/sub"]
    assert probed == process


@pytest.mark.parametrize("shell", SHELLS)
def test_variables_may_have_the_names_of_those_of_the_launcher(layout: Layout, shell: str) -> None:
    names = ("root", "release", "version", "log", "pid_file", "since", "here", "old", "line", "mine", "found")
    settings = config(layout, code=SLEEP, env={name: f"my {name}" for name in names})
    script = launcher.write(layout, settings.processes["app"], "v1")
    with subprocess.Popen([*_words(shell), script], cwd="/", start_new_session=True) as started:
        eventually(lambda: "up" in state.last_lines(layout, "app"), "it writes to its log")
        proof.prove(layout, settings, "v1", ["app"])
        seen = psutil.Process(started.pid)
        assert {name: seen.environ()[name] for name in names} == settings.processes["app"].env
        assert not any(path.path.endswith("app.log") and path.fd > 2 for path in seen.open_files())
        assert control.stop(layout, settings, ["app"]) == ["app"]


def test_what_a_launcher_holds_is_the_owners_alone(layout: Layout) -> None:
    """The values of ``env`` may be keys of an exchange. Launchers of an earlier updater could be read by everybody."""
    settings = config(layout, code=SLEEP, env={"API_KEY": "s3cret"})
    old = launcher.write(layout, settings.processes["app"], "v0")
    for path in (old, old.parent, layout.launchers):
        path.chmod(0o755)
    script = launcher.write(layout, settings.processes["app"], "v1")
    assert "s3cret" in script.read_text()
    assert oct(script.stat().st_mode & 0o777) == "0o700"
    assert oct(layout.launchers.stat().st_mode & 0o777) == "0o700", "so nobody else gets to the old ones"
    launcher.write(layout, settings.processes["app"], "v0")
    assert oct(old.stat().st_mode & 0o777) == "0o700", "and the next start closes them too"


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


NAMED_ODDLY = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"S 1) S 1\\n) Z 1", 0, 0, 0)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names there are no input")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_launcher_knows_a_process_that_has_named_itself_oddly(layout: Layout, shell: str) -> None:
    settings = config(layout, code=NAMED_ODDLY)
    control.start(layout, settings, "v1")
    eventually(lambda: "up" in state.last_lines(layout, "app"), "it has its name")
    again = by_hand(layout, shell)
    assert again.returncode == 1 and "is running already" in again.stderr, again


@pytest.mark.parametrize("shell", SHELLS)
def test_a_launcher_tells_the_original_from_its_copy_as_updater_does(layout: Layout, shell: str) -> None:
    settings = config(layout, code=SLEEP)
    [one] = control.start(layout, settings, "v1")
    seen, fields = layout.root.stat(), read_fields(layout.pid_file("app"))
    assert fields["root"] == f"{seen.st_dev}:{seen.st_ino}"
    for written in (fields["root"], str(seen.st_ino), ""):
        layout.pid_file("app").write_text(as_lines({**fields, "root": written}))
        assert state.find(layout, "app") == one
        assert "is running already" in by_hand(layout, shell).stderr, written
    (layout.release("v1") / "app.py").write_text("")  # the second one ends at once
    for written in (f"{seen.st_dev + 1}:{seen.st_ino}", f"{seen.st_dev}:{seen.st_ino + 1}", "1"):
        layout.pid_file("app").write_text(as_lines({**fields, "root": written}))
        assert state.find(layout, "app") is None
        assert by_hand(layout, shell).returncode == 0, written
    layout.pid_file("app").write_text(as_lines(fields))


def by_hand(layout: Layout, shell: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher of v1 with a shell, and wait."""
    return subprocess.run(
        [*_words(shell), layout.launcher("v1", "app")],
        capture_output=True, text=True, check=False, cwd="/", timeout=60,
    )  # fmt: skip


def _words(shell: str) -> list[str]:
    """How a shell is called so that it is one of POSIX."""
    more = {"busybox": ["sh"], "zsh": ["--emulate", "sh"]}
    return [shutil.which(shell) or shell, *more.get(shell, [])]


def test_a_starter_that_is_killed_leaves_no_unknown_process(layout: Layout) -> None:
    config(layout, code=SLEEP)
    text = (
        "import sys; from pathlib import Path; from updater.layout import Layout; from updater.config import *;"
        "from updater.processes import control; layout = Layout(Path(sys.argv[1]));"
        "control.start(layout, Config(layout.config, processes={'app': ProcessConfig('app', ('python', 'app.py'))}), 'v1');"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", text, str(layout.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: state.find(layout, "app"), "it is known").release == "v1"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("python", "app.py"), "raise SystemExit(3)", "exited with 3"),
        (("python", "app.py"), "import os\nos.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        (("no-such-program",), "", "exited with 127"),
    ],
)
def test_a_process_that_dies_at_once_leaves_its_reason(
    layout: Layout, command: tuple[str, ...], code: str, says: str
) -> None:
    settings = _patient(config(layout, *command, code=f"print('last words', flush=True)\n{code}"))
    with pytest.raises((ProcessFailed, HealthFailed), match=says) as raised:
        control.start(layout, settings, "v1")
        health.wait_healthy(layout, settings, "v1", ["app"])
    assert "last words" in raised.value.as_text() or command == ("no-such-program",)


def test_a_process_that_goes_into_the_background_is_told_to_stay(layout: Layout) -> None:
    fork = "import os\nif os.fork():\n    os._exit(0)\nos.setsid()\n"
    settings = _patient(config(layout, code=fork + SLEEP))
    with pytest.raises((ProcessFailed, HealthFailed), match="exited with 0") as raised:
        control.start(layout, settings, "v1")
        health.wait_healthy(layout, settings, "v1", ["app"])
    assert "must stay in the foreground" in raised.value.as_text()
    assert control.stop(layout, settings, ["app"]) == ["app"]


def test_what_died_before_it_was_proved_leaves_its_reason(layout: Layout) -> None:
    """A start that says only that nothing runs helps nobody at night."""
    settings = config(layout, code="import time\nprint('no exchange', flush=True)\ntime.sleep(60)\n")
    (one,) = control.start(layout, settings, "v1", ["app"])
    eventually(lambda: "no exchange" in state.last_lines(layout, "app"), "it has written")
    os.kill(one.identity.pid, signal.SIGKILL)
    eventually(lambda: not one.identity.alive(), "it is dead")
    with pytest.raises(ProcessFailed, match="app was killed by SIGKILL") as raised:
        proof.prove(layout, settings, "v1", ["app"])
    assert raised.value.details[-1].strip() == "no exchange"


def test_only_the_lines_since_the_last_start_are_evidence(layout: Layout) -> None:
    settings = _patient(config(layout, code="print('old', flush=True)\nraise SystemExit(1)"))
    for text in ("old", "new"):
        config(layout, code=f"print({text!r}, flush=True)\nraise SystemExit(1)")
        with pytest.raises((ProcessFailed, HealthFailed)) as raised:
            control.start(layout, settings, "v1")
            health.wait_healthy(layout, settings, "v1", ["app"])
    assert "new" in raised.value.as_text() and "old" not in raised.value.as_text()


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = int(self.path.strip("/"))
        self.send_response(code)
        self.send_header("Location", "/200")
        self.end_headers()
        self.wfile.write(b"all is <b>well</b>")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_what_the_probes_see(layout: Layout) -> None:
    port = free_port()
    settings = config(layout, "python", "app.py", str(port), code=SERVER)
    control.start(layout, settings, "v1")
    subject = Subject(layout, settings.processes["app"], "v1")
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: ask(subject, ProbeConfig("tcp", port=port)).ok, "it listens")
    assert ask(subject, ProbeConfig("alive")).ok
    assert not ask(Subject(layout, settings.processes["app"], "v2"), ProbeConfig("alive")).ok
    assert ask(subject, ProbeConfig("http", url=f"{url}/204")).ok
    sick = ask(subject, ProbeConfig("http", url=f"{url}/500"))
    assert (sick.ok, sick.summary) == (False, f"GET {url}/500 answered 500") and "well" in sick.evidence[0]
    assert not ask(subject, ProbeConfig("http", url=f"{url}/302")).ok, "a redirect is not health"
    assert ask(subject, ProbeConfig("http", url=f"{url}/503", status=503)).ok
    assert not ask(subject, ProbeConfig("http", url=f"{url}/200", contains="nothing of the kind")).ok
    assert (
        "nobody listens" in ask(subject, ProbeConfig("http", url=f"http://127.0.0.1:{free_port()}/")).summary
    )
    assert ask(
        subject,
        ProbeConfig(
            "command", command=("python", "-c", "import os; assert os.environ['UPDATER_RELEASE'] == 'v1'")
        ),
    ).ok
    assert not ask(subject, ProbeConfig("command", command=("false",))).ok
    assert (
        "did not end within"
        in ask(subject, ProbeConfig("command", command=("sleep", "60"), timeout=0.2)).summary
    )
    assert not ask(subject, ProbeConfig("command", command=("no-such-program",))).ok


def test_a_heartbeat_must_be_fresh_and_the_new_processs_own(layout: Layout) -> None:
    beat = layout.shared / "beat"
    beat.write_text("old")
    os.utime(beat, (time.time() - 20, time.time() - 20))
    settings = config(layout, code=SLEEP)
    control.start(layout, settings, "v1")
    subject = Subject(layout, settings.processes["app"], "v1")
    assert "since the process started" in ask(subject, ProbeConfig("file", path="beat", max_age=60)).summary
    assert "last written" in ask(subject, ProbeConfig("file", path="beat", max_age=5)).summary
    assert "No such file" in ask(subject, ProbeConfig("file", path="none")).summary
    beat.write_text("new")
    assert ask(subject, ProbeConfig("file", path="beat", max_age=60)).ok
    if sys.platform == "linux":  # the clock has been put back since the start
        fields = {**read_fields(layout.pid_file("app")), "since": "2099-01-01T00:00:00Z"}
        layout.pid_file("app").write_text(as_lines(fields))
        assert ask(subject, ProbeConfig("file", path="beat", max_age=60)).ok


def test_a_probe_that_is_not_required_only_warns(layout: Layout) -> None:
    """F31: what needs the internet may warn, and never decides."""
    optional = ProbeConfig("tcp", port=free_port(), required=False)
    settings = config(layout, code=SLEEP, probes=(ProbeConfig("alive"), optional))
    control.start(layout, settings, "v1")
    told: list[str] = []
    health.wait_healthy(layout, settings, "v1", ["app"], warn=told.append)
    health.watch(layout, settings, "v1", ["app"], warn=told.append)
    assert len(told) == 2 and "not required" in told[0]


def test_a_process_that_somebody_restarts_is_not_healthy(layout: Layout) -> None:
    settings = config(layout, code=SLEEP)
    control.start(layout, settings, "v1")
    restarted: list[bool] = []

    def meddle() -> None:
        if not restarted:
            restarted.append(True)
            control.stop(layout, settings, ["app"])
            control.start(layout, settings, "v1")

    with pytest.raises(HealthFailed, match="restarted by somebody else"):
        health.watch(layout, settings, "v1", ["app"], check=meddle)


def test_pid_files_are_for_shells_too(layout: Layout) -> None:
    settings = config(layout, code=SLEEP)
    (one,) = control.start(layout, settings, "v1")
    told = subprocess.run(
        ["sed", "-n", "s/^pid=//p", layout.pid_file("app")], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) == one.identity.pid
    assert read_fields(layout.pid_file("app"))["release"] == "v1"


DRIPS = """
import socket, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    answering, _ = listening.accept()
    kind = (answering.recv(1000).split() + [b"", b""])[1]
    try:
        if kind == b"/events":
            answering.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\nready\\n")
        elif kind == b"/sick":
            answering.sendall(b"HTTP/1.1 500 No\\r\\n\\r\\nno database\\n")
        else:
            answering.sendall(b"HTTP/1.1 200 OK\\r\\n")
        for _ in range(40):
            answering.sendall(b"X-More: 1\\r\\n")
            time.sleep(0.05)
    except OSError:
        pass
    answering.close()
"""


def test_an_answer_that_drips_is_limited_as_a_whole(layout: Layout) -> None:
    """A limit for each byte is none: whoever sends one a second is never late."""
    port = free_port()
    settings = config(layout, "python", "app.py", str(port), code=DRIPS)
    control.start(layout, settings, "v1")
    subject = Subject(layout, settings.processes["app"], "v1")
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: ask(subject, ProbeConfig("tcp", port=port)).ok, "it listens")

    def asked(path: str, **about: str) -> tuple[Answer, float]:
        begun = time.monotonic()
        answer = ask(subject, ProbeConfig("http", url=url + path, timeout=0.5, **about))  # type: ignore[arg-type]
        return answer, time.monotonic() - begun

    answer, took = asked("/head")
    assert not answer.ok and "no answer within 0.5 s" in answer.summary and took < 1.5
    assert asked("/events")[0].ok, "a stream that never ends is an answer"
    assert asked("/events", contains="ready")[0].ok
    answer, took = asked("/events", contains="never")
    assert not answer.ok and "without 'never'" in answer.summary and took < 1.5
    answer, _ = asked("/sick")
    assert "answered 500" in answer.summary and "no database" in answer.evidence[0]


def test_a_probe_can_be_cancelled(layout: Layout) -> None:
    port = free_port()
    settings = config(layout, "python", "app.py", str(port), code=DRIPS)
    control.start(layout, settings, "v1")
    subject = Subject(layout, settings.processes["app"], "v1")
    eventually(lambda: ask(subject, ProbeConfig("tcp", port=port)).ok, "it listens")
    cancel = Cancellation()
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() > begun + 0.2:
            cancel.ask("the test")
        cancel.check()

    for probe in (
        ProbeConfig("http", url=f"http://127.0.0.1:{port}/head", timeout=60),
        ProbeConfig("command", command=("sleep", "60"), timeout=60),
    ):
        with pytest.raises(Cancelled):
            ask(subject, probe, check)
    assert time.monotonic() < begun + 10


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a pipe"), (os.mkdir, "a directory")])
def test_a_log_that_is_no_file_is_refused_in_words(
    layout: Layout, make: Callable[[Path], None], what: str
) -> None:
    """A pipe that nobody reads would keep whoever opens it for ever."""
    settings = config(layout, code=SLEEP)
    make(layout.process_log("app"))
    with pytest.raises(PreflightFailed, match=f"is {what}, not a regular file") as raised:
        control.start(layout, settings, "v1")
    assert "mv shared/logs/app.log" in str(raised.value.advice)
    assert control.evidence(layout, "app") == ["it wrote nothing to shared/logs/app.log"]
    script = launcher.write(layout, settings.processes["app"], "v1")
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1 and "not a regular file" in done.stderr


@pytest.mark.parametrize("how", ["time", "cancel"])
def test_a_launcher_that_hangs_is_ended(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    settings = config(layout, code=SLEEP)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "date").write_text("#!/bin/sh\nexec sleep 600\n")
    (tools / "date").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    begun = time.monotonic()

    def check() -> None:
        if how == "cancel" and time.monotonic() > begun + 0.5:
            raise Cancelled("cancelled by the test")

    monkeypatch.setattr(control, "START_TIMEOUT", 1.0 if how == "time" else 60.0)
    with pytest.raises(ProcessFailed if how == "time" else Cancelled):
        control.start(layout, settings, "v1", check=check)
    assert state.running(layout) == [] and time.monotonic() < begun + 20
    monkeypatch.undo()
    control.start(layout, settings, "v1")
