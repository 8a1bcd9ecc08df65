"""The engine: phases in order, undone in reverse, whatever fails and wherever."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updater import lock, records
from updater.config import Config
from updater.deployment import engine, journal
from updater.deployment.cancel import Cancellation
from updater.deployment.engine import Phase
from updater.deployment.journal import Journal
from updater.deployment.transaction import Request, Transaction
from updater.errors import Cancelled, HealthFailed, VerificationFailed
from updater.layout import Layout


class Step(Phase):
    """A phase that writes down what happens to it and fails when told to."""

    def __init__(
        self,
        name: str,
        story: list[str],
        *,
        fails: Exception | None = None,
        stuck: bool = False,
        touches: bool = False,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.touches_service = touches  # type: ignore[misc]
        self.story, self.fails, self.stuck = story, fails, stuck

    def do(self, tx: Transaction) -> dict[str, Any]:
        self.story.append(f"do {self.name}")
        if self.fails:
            raise self.fails
        return {"was": self.name}

    def undo(self, tx: Transaction) -> None:
        self.story.append(f"undo {self.name}")
        if self.stuck:
            raise HealthFailed(f"{self.name} is stuck")


class Nothing(Phase):
    name: ClassVar[str] = "resolve"

    def do(self, tx: Transaction) -> dict[str, Any]:
        return {"nothing": "v1 is in service already"}


@pytest.fixture
def tx(tmp_path: Path) -> Any:
    return transaction(tmp_path)


def transaction(root: Path) -> Transaction:
    layout = Layout(root)
    layout.logs.mkdir(parents=True)
    before = {"at": records.stamp(), "in_service": "v1", "good": "v1", "previous": None, "running": []}
    request = Request("deploy", "v2")
    layout.own.mkdir()
    book = Journal.create(layout, {"request": request.as_json(), "before": before})
    fd = -1
    held = lock.Lock((fd,), layout, "deploy")
    return Transaction(layout, Config(layout.config), held, book, Cancellation(), request, before)


def closed(tx: Transaction) -> journal.Log:
    path = journal.find(tx.layout, tx.journal.id)
    assert path is not None and path.parent.name == "closed"
    return journal.read(path)


def test_phases_run_in_order_and_what_they_found_is_in_the_journal(tx: Transaction) -> None:
    story: list[str] = []
    outcome = engine.run(tx, [Step("a", story), Step("b", story)])
    assert outcome.result == "succeeded" and outcome.exit_code == 0
    assert story == ["do a", "do b"]
    assert closed(tx).data("b") == {"was": "b"}
    assert records.history(tx.layout)[-1]["outcome"] == "succeeded"


@settings(deadline=None)
@given(
    count=st.integers(1, 6),
    failing=st.integers(0, 5),
    stuck=st.sets(st.integers(0, 5)),
    touching=st.integers(0, 5),
)
def test_a_failure_anywhere_undoes_all_that_began_in_reverse(
    tmp_path_factory: pytest.TempPathFactory, count: int, failing: int, stuck: set[int], touching: int
) -> None:
    """F46: the undo covers the half-done step as well; a failing undo does not keep the others from being done."""
    failing %= count
    story: list[str] = []
    tx = transaction(tmp_path_factory.mktemp("root"))
    names = "abcdef"
    steps = [
        Step(
            names[i], story,
            fails=HealthFailed("sick") if i == failing else None, stuck=i in stuck, touches=i >= touching,
        )
        for i in range(count)
    ]  # fmt: skip
    outcome = engine.run(tx, steps)
    began = names[: failing + 1]
    assert story == [f"do {name}" for name in began] + [f"undo {name}" for name in reversed(began)]
    if any(i in stuck for i in range(failing + 1)):
        assert (outcome.result, outcome.exit_code) == ("rollback-failed", 5)
    else:
        assert outcome.result == ("rolled-back" if touching <= failing else "failed")
        assert outcome.exit_code == 4
        assert closed(tx).intended() == []
    assert records.history(tx.layout)[-1]["outcome"] == outcome.result
    assert journal.unfinished(tx.layout) == []


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (HealthFailed("dashboard answered 500", details=["KeyError: 'exchange'"]), 4, "failed its health check and was rolled back; v1 is in service"),
        (VerificationFailed("the digest differs"), 7, "failed and was rolled back"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 4, "could not be written and was rolled back"),
        (ZeroDivisionError("a defect"), 4, "failed and was rolled back"),
    ],
)  # fmt: skip
def test_a_failure_says_what_became_of_it(tx: Transaction, failure: Exception, code: int, says: str) -> None:
    tx.facts["resolve"] = {"version": "v2"}
    outcome = engine.run(tx, [Step("start", [], fails=failure, touches=True)])
    assert outcome.error is not None and outcome.exit_code == code
    text = outcome.error.as_text()
    assert "v2" in text and says in text and "v1 is in service again" in text
    if isinstance(failure, HealthFailed):
        assert "dashboard answered 500" in text and "KeyError" in text, "the evidence is kept (F29)"


def test_a_release_that_was_in_service_already_is_not_called_rolled_back(tx: Transaction) -> None:
    tx.facts["resolve"] = {"version": "v1"}
    tx.before = {**tx.before, "previous": "v0"}
    outcome = engine.run(tx, [Step("start", [], fails=HealthFailed("web exited with 1"), touches=True)])
    assert outcome.error is not None
    text = outcome.error.as_text()
    assert (
        "v1 failed its health check; it was in service before and still is" in text
        and "was rolled back" not in text
    )
    assert "go back to v0: updater rollback" in text
    stuck = engine.rollback_failed(tx, HealthFailed("web exited with 1"), [])
    assert "updater activate v0" in str(stuck.advice), "once more the same is no way out"


def test_nothing_to_do_is_a_success_that_says_so(tx: Transaction) -> None:
    story: list[str] = []
    outcome = engine.run(tx, [Nothing(), Step("b", story)])
    assert (outcome.result, outcome.exit_code, story) == ("nothing-to-do", 0, [])
    assert outcome.record["text"] == "v1 is in service already"


def test_a_request_to_stop_is_obeyed_between_phases_and_not_on_the_way_back(tx: Transaction) -> None:
    story: list[str] = []

    class Asks(Step):
        def do(self, tx: Transaction) -> dict[str, Any]:
            tx.cancel.ask("SIGTERM")
            return super().do(tx)

        def undo(self, tx: Transaction) -> None:
            tx.cancel.ask("SIGTERM")
            tx.cancel.check()
            super().undo(tx)

    outcome = engine.run(tx, [Asks("a", story), Step("b", story)])
    assert story == ["do a", "undo a"]
    assert (outcome.result, outcome.exit_code) == ("cancelled", 130)
    assert isinstance(outcome.error, Cancelled)


def test_after_the_commit_point_nothing_is_undone(tx: Transaction) -> None:
    """F28: a failing clean-up does not roll back a good deployment."""
    story: list[str] = []

    class Commits(Step):
        def do(self, tx: Transaction) -> dict[str, Any]:
            tx.memory["committed"] = True
            return super().do(tx)

    outcome = engine.run(
        tx, [Step("a", story), Commits("commit", story, fails=OSError(errno.EIO, "I/O error"))]
    )
    assert outcome.result == "succeeded"
    assert story == ["do a", "do commit"]
    assert any("I/O error" in text for text in outcome.record["warnings"])


def test_what_the_way_back_has_to_tell_survives_a_kill_on_it(tx: Transaction) -> None:
    """The backup that holds what a release wrote is found out by one undo, and told at the very end."""

    class Keeps(Step):
        def undo(self, tx: Transaction) -> None:
            tx.memory["data_told"] = "what v2 wrote is kept in backup_20260101_000000."
            tx.warn("a dump is not in it")

    first = [Keeps("migrate", []), Step("stop", [])]
    for phase in first:
        tx.journal.record("intent", phase.name)
    engine.undo(tx, [first[0]])
    again = Transaction.recovered(tx.layout, tx.config, tx.lock, tx.journal, tx.journal.read())
    engine.undo(again, [first[1]])
    told = engine.explained(again, HealthFailed("it died"), touched=True)
    assert "kept in backup_20260101_000000" in (told.state or "") and again.warnings == [
        "a dump is not in it"
    ]
    assert (
        Transaction.recovered(tx.layout, tx.config, tx.lock, tx.journal, tx.journal.read()).warnings
        == again.warnings
    )
