"""What updater writes for shells comes out of a real one as it went in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updater import shellwords
from updater.backups import swap
from updater.backups.swap import Folder, Step, Swap
from updater.config import ProbeConfig, ProcessConfig
from updater.deployment import tidying
from updater.errors import BackupFailed
from updater.layout import Layout
from updater.processes import bound, launcher

SHELLS = [it for it in ("sh", "dash", "bash", "busybox sh", "mksh", "zsh") if shutil.which(it.split()[0])]

READ = r"""
read -r head && printf '%s\000' "$head"
while read -r kind depth number before after holder path; do
    case $kind in
        S) printf '%s\000' "$kind $depth $number $before $after"; printf '%b\000' "$holder" "$path" ;;
        F) printf '%s\000' "$kind $depth $number $before"; printf '%b\000' "$after" ;;
    esac
done
"""
"""As an emergency script would read `swap.steps`."""

names = st.binary(min_size=1, max_size=12).filter(lambda it: b"\0" not in it and b"/" not in it)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join).map(os.fsdecode)


def read_by(shell: str, text: bytes) -> list[bytes]:
    words = ["zsh", "--emulate", "sh"] if shell == "zsh" else shell.split()
    done = subprocess.run([*words, "-c", READ], input=text, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.split(b"\0")[:-1]


def expected(moved: Swap) -> list[bytes]:
    lines = [b"id=%b purpose=%b keep=%d" % (moved.id.encode(), moved.purpose.encode(), moved.keep)]
    for it in moved.steps:
        lines.append(b"S %d %d %d %d" % (it.path.count("/"), it.number, it.before, it.after))
        lines += [os.fsencode(it.holder or "."), os.fsencode(it.path)]
    for folder in moved.folders:
        was = f"{folder.was[0]:o}" if folder.was else "-"
        lines += [f"F {folder.path.count('/')} {folder.mode:o} {was}".encode(), os.fsencode(folder.path)]
    return lines


@settings(max_examples=25)
@given(st.lists(st.tuples(st.one_of(st.just(""), paths), paths), max_size=30), st.lists(paths, max_size=10))
def test_a_shell_reads_every_path_that_there_can_be(steps: list[tuple[str, str]], folders: list[str]) -> None:
    moved = Swap(
        "20261128T153000-ab12cd", "restore", ("",),
        tuple(Step(path, holder, number, True, False) for number, (holder, path) in enumerate(steps)),
        tuple(Folder(path, 0o755, (0, 0), None) for path in folders),
    )  # fmt: skip
    assert read_by("sh", swap.for_shells(moved)) == expected(moved)


NASTY = [
    " ", "a b ", "\\", "\\n", "\\0101", "%s", "-n", "'\"$(id)`id`", "a\nb\n", "\t", "ümläut", "\udcff\udc80", "*", "\x7f\x1b[0m", "~",
    "\\\\c", "x\r",
]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_the_same(shell: str) -> None:
    moved = Swap(
        "20261128T153000-ab12cd", "migrate", ("",),
        tuple(Step(f"data/{name}", name, number, False, True) for number, name in enumerate(NASTY)),
        (Folder("data/x y", 0o700, (0, 0), (0o755, 0, 0)), Folder("data/new", 0o1777, (0, 0), None)), keep=True,
    )  # fmt: skip
    assert read_by(shell, swap.for_shells(moved)) == expected(moved)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    for place in (made.own, made.logs, made.shared / "data"):
        place.mkdir(parents=True)
    return made


def begun(layout: Layout, purpose: str = "restore") -> Swap:
    moved = swap.begin(layout, "20261128T153000-ab12cd", purpose, [""])
    (swap.directory(layout, moved, "") / "new" / "0").write_text("new")
    me = (os.geteuid(), os.getegid())
    return Swap(
        moved.id, purpose, moved.holders, (Step("data/file", "", 0, True, True),),
        (Folder("data", 0o755, me, (0o755, *me)),), ready=True,
    )  # fmt: skip


def test_the_steps_are_there_before_anything_moves_and_go_when_it_is_over(layout: Layout) -> None:
    place = layout.shared / "data" / "file"
    for end in (swap.undo, swap.accept):
        place.write_text("old")
        moved = begun(layout)
        assert not layout.swap_steps.exists(), "nothing has been moved yet"
        swap.forward(layout, moved)
        head = layout.swap_steps.read_text().splitlines()[0]
        assert head == f"id={moved.id} purpose=restore keep=0"
        assert layout.swap.read_text().startswith(f'{{"id":"{moved.id}","purpose":"restore",')
        assert layout.swap_steps.stat().st_mode & 0o777 == 0o600
        end(layout)
        assert not layout.swap_steps.exists() and not layout.swap.exists()
    assert place.read_text() == "new"


def test_steps_are_there_as_long_as_a_failed_move_is_not_taken_back(layout: Layout) -> None:
    blocked = layout.shared / "data" / "file"
    blocked.mkdir()
    (blocked / "someone's").touch()
    with pytest.raises(BackupFailed):
        swap.forward(layout, begun(layout))
    assert layout.swap_steps.exists() and layout.swap.exists()
    swap.set_aside(layout)
    assert not layout.swap_steps.exists()


def test_steps_that_a_kill_left_are_taken_away_before_the_next_move_and_by_tidying_up(layout: Layout) -> None:
    layout.swap_steps.write_text("id=20261128T153000-ab12cd purpose=migrate keep=0\n")
    begun(layout, "undo")
    assert not layout.swap_steps.exists(), "the same deployment may move twice"
    layout.swap_steps.write_text("id=x purpose=undo keep=0\n")
    layout.swap.unlink()
    tidying.tidy(layout)
    assert not layout.swap_steps.exists()


PROBES = (
    ProbeConfig("alive", timeout=0.5),
    ProbeConfig("http", url="http://127.0.0.1:8080/it's?a=1&b=$x", timeout=2),
    ProbeConfig("http", url="http://h/", status=503, contains='say "$(id)" `id` \\', timeout=2.5, required=False),
    ProbeConfig("tcp", host="::1", port=80),
    ProbeConfig("file", path="data/heart beat", max_age=30.5),
    ProbeConfig("command", command=("python", "-c", "print('#')", "$HOME")),
    ProbeConfig("command", command=("bin/check it",)),
    ProbeConfig("command", command=("true", "a\ntouch broken-out")),
    ProbeConfig("http", url="http://h/", contains="a\u2028b\rc"),
)  # fmt: skip

WANTED = [
    ["probe:", "alive", "0.5"],
    ["probe:", "http", "2", "http://127.0.0.1:8080/it's?a=1&b=$x", "2xx"],
    ["probe-not-required:", "http", "2.5", "http://h/", "503", 'say "$(id)" `id` \\'],
    ["probe:", "tcp", "5", "::1", "80"],
    ["probe:", "file", "5", "shared/data/heart beat", "30.5"],
    ["probe:", "command", "5", "/the release/.venv/bin/python", "-c", "print('#')", "$HOME"],
    ["probe:", "command", "5", "/the release/bin/check it"],
    ["probe:", "command", "5", "unreadable"],
    ["probe:", "http", "5", "unreadable"],
]

READ_PROBES = r"""
release='/the release'
sed -n 's/^# \(probe[a-z-]*:\)/\1/p' "$1" | while read -r mark type seconds words; do
    eval "set -- $words"
    printf '%s\000' "$mark" "$type" "$seconds" "$@"
    printf '\001\000'
done
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_launcher_tells_a_shell_how_to_stop_and_to_probe(layout: Layout, shell: str) -> None:
    process = ProcessConfig(
        "web", ("true",), {"A": "it's\tone", "B": "x\ny", "C": "2 words"}, "sub dir", 2.5, "INT", PROBES
    )
    script = launcher.write(layout, process, "v1")
    words = ["zsh", "--emulate", "sh"] if shell == "zsh" else shell.split()
    done = subprocess.run(
        [*words, "-c", READ_PROBES, "read", script], capture_output=True, check=True, text=True
    )
    found = [it.split("\0")[:-1] for it in done.stdout.split("\1\0")[:-1]]
    assert found == WANTED
    lines = script.read_text().split("\n")
    assert "# stop: INT 2.5" in lines and "# cwd: 'sub dir'" in lines
    assert {"# env: A unreadable", "# env: B unreadable", "# env: C '2 words'"} <= set(lines)
    subprocess.run([*words, "-n", script], check=True)
    assert bound.of_release(layout, "v1") == {"web": process}


def test_no_value_breaks_out_of_a_comment(layout: Layout) -> None:
    bad = "x\n# updater.toml, as it was when this was written: {}\necho out"
    process = ProcessConfig(
        "web", ("true",), {}, ".", 20, "TERM", (ProbeConfig("http", url="http://h", contains=bad),)
    )
    text = "\n".join(bound.for_shells(process))
    assert text == "# stop: TERM 20\n# probe: http 5 unreadable"
    assert shellwords.comment("plain", bad) is None
