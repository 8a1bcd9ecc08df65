"""The examples of docs/databases.md, as they stand there, against real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.databases import DOCUMENT, Postgres, example, mariadb, postgres, program, redis
from tests.site import Site, eventually, free_port
from updater import configfile, configkeys
from updater.backups import create, dumps
from updater.backups.catalogue import Backup
from updater.config import Config
from updater.errors import BackupFailed
from updater.layout import Layout


@pytest.fixture(scope="module")
def pg() -> Iterator[Postgres]:
    """A server, and its own tools on the PATH."""
    with postgres() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(running.bin), prepend=os.pathsep)
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "a root")
    for directory in (layout.own, layout.shared / "data", layout.logs):
        directory.mkdir(parents=True)
    return layout


def configured(layout: Layout, heading: str, **env: str) -> Config:
    """A configuration with the example under that heading; ``env`` instead of its own."""
    text, table = example(heading)
    lines = [line for line in text.splitlines() if not line.startswith("env = ")]
    merged = {**table.get("env", {}), **env}
    words = ", ".join(f"{name} = {json.dumps(value)}" for name, value in merged.items())
    written = f'[source]\nrepository = "owner/bot"\n{chr(10).join(lines)}\nenv = {{ {words} }}\n'
    layout.config.write_text(written)
    return configfile.load(layout.config)


def backup(layout: Layout, config: Config) -> Backup:
    return create.create(layout, config, create.Making("by hand"))


SCHEMA = """
CREATE TABLE trades (id bigserial PRIMARY KEY, symbol text NOT NULL, note bytea);
CREATE TABLE ledger (trade bigint PRIMARY KEY REFERENCES trades, amount numeric NOT NULL);
CREATE VIEW totals AS SELECT symbol, sum(amount) FROM trades JOIN ledger ON trade = id GROUP BY symbol;
CREATE SCHEMA audit;
CREATE TABLE audit.seen (at timestamptz DEFAULT now());
SELECT lo_from_bytea(4711, 'a large object');
"""

# One transaction each: what is in one table but not in the other is not of one moment.
TRADE = "WITH t AS (INSERT INTO trades (symbol, note) VALUES ('BTC', decode('00ff5c0a', 'hex')) RETURNING id) INSERT INTO ledger SELECT id, 1.25 FROM t;"


class Writer(threading.Thread):
    """Commits one trade after the other until it is told to stop."""

    def __init__(self, pg: Postgres, url: str) -> None:
        super().__init__()
        self.client = subprocess.Popen([pg.bin / "psql", "-Xq", url], stdin=subprocess.PIPE, text=True)
        self.over = threading.Event()

    def run(self) -> None:
        assert self.client.stdin is not None
        while not self.over.is_set():
            self.client.stdin.write(TRADE + "\n")
            self.client.stdin.flush()

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.over.set()
        self.join()
        assert self.client.stdin is not None
        self.client.stdin.close()
        self.client.wait()


def count(pg: Postgres, database: str) -> int:
    return int(pg.sql("SELECT count(*) FROM trades", database)[0])


def test_postgres_comes_back_as_it_was_at_one_moment_while_rows_were_committed(
    pg: Postgres, layout: Layout
) -> None:
    url = pg.database("bot")
    pg.sql(SCHEMA, "bot")
    config = configured(layout, "PostgreSQL", DATABASE_URL=url)
    with Writer(pg, url):
        eventually(lambda: count(pg, "bot") > 200, "the writer is at work")
        before = count(pg, "bot")
        made = backup(layout, config)
        after = count(pg, "bot")
        eventually(lambda: count(pg, "bot") > after + 200, "it goes on")
    assert made.manifest.warnings == (), "a dump that went well says nothing"

    # What a newer release may do: change rows, drop a table, add others that hang on the old ones.
    pg.sql(
        "UPDATE trades SET symbol = 'ETH'; DELETE FROM ledger WHERE trade % 2 = 0; DROP VIEW totals; DROP TABLE audit.seen;"
        "CREATE TABLE newer (trade bigint REFERENCES trades); CREATE VIEW seen_too AS SELECT * FROM ledger;"
        "SELECT lo_unlink(4711);",
        "bot",
    )
    dumps.load(layout, config, made.directory, ["postgres"])

    rows = pg.sql(
        "SELECT id, symbol, encode(note, 'hex'), trade, amount FROM trades FULL JOIN ledger ON trade = id ORDER BY id",
        "bot",
    )
    assert before <= len(rows) <= after
    assert rows == [f"{number}|BTC|00ff5c0a|{number}|1.25" for number in range(1, len(rows) + 1)]
    assert pg.sql("SELECT * FROM totals", "bot") == [f"BTC|{len(rows) * 1.25:.2f}"]
    tables = "SELECT schemaname, relname FROM pg_stat_user_tables ORDER BY 1, 2"
    assert pg.sql(tables, "bot") == ["audit|seen", "public|ledger", "public|trades"]
    assert pg.sql("SELECT convert_from(lo_get(4711), 'UTF8')", "bot") == ["a large object"]
    pg.sql(TRADE, "bot")
    assert count(pg, "bot") == len(rows) + 1, "the sequence goes on where it was"


def test_what_others_have_made_in_a_postgres_database_bars_no_restore(pg: Postgres, layout: Layout) -> None:
    """An extension of a superuser, whose comment nobody else may set, and a view of another role."""
    url = pg.database("bot")
    if "citext" not in pg.sql("SELECT name FROM pg_available_extensions"):
        pytest.skip("NOT TESTED: this PostgreSQL has no extensions")
    pg.sql("CREATE EXTENSION citext; DROP ROLE IF EXISTS other; CREATE ROLE other LOGIN", "bot", user="admin")
    pg.sql(
        "CREATE TABLE trades (symbol citext); INSERT INTO trades VALUES ('BTC');"
        "GRANT CREATE ON SCHEMA public TO other; GRANT SELECT ON trades TO other",
        "bot",
    )
    pg.sql("CREATE VIEW theirs AS SELECT * FROM trades", "bot", user="other")
    config = configured(layout, "PostgreSQL", DATABASE_URL=url)
    made = backup(layout, config)
    pg.sql("UPDATE trades SET symbol = 'ETH'", "bot")
    dumps.load(layout, config, made.directory, ["postgres"])
    assert pg.sql("SELECT symbol FROM trades WHERE symbol = 'btc'; SELECT * FROM theirs", "bot") == [
        "BTC",
        "BTC",
    ]
    pg.sql("DROP OWNED BY other; DROP ROLE other", "bot", user="admin")


def test_a_postgres_restore_that_fails_changes_nothing(pg: Postgres, layout: Layout) -> None:
    url = pg.database("bot")
    pg.sql(SCHEMA + TRADE, "bot")
    config = configured(layout, "PostgreSQL", DATABASE_URL=url)
    made = backup(layout, config)
    pg.sql(TRADE, "bot")
    pg.sql("ALTER SCHEMA public OWNER TO admin", "bot", user="admin")  # nothing can be made anew there
    with pytest.raises(BackupFailed, match="could not be put back: it exited with 3") as raised:
        dumps.load(layout, config, made.directory, ["postgres"])
    assert "permission denied for schema public" in raised.value.details[0]
    assert "unchanged if that is one transaction" in str(raised.value.state)
    assert count(pg, "bot") == 2


def test_a_postgres_dump_that_is_cut_off_is_refused_and_undoes_itself(pg: Postgres, layout: Layout) -> None:
    """By the check when it is made; and the restore takes all or nothing, should it ever get one."""
    url = pg.database("bot")
    pg.sql(SCHEMA + TRADE * 2000, "bot")
    _, commands = example("PostgreSQL")
    whole = subprocess.run(
        commands["dump"], env={**os.environ, "DATABASE_URL": url}, capture_output=True, check=True
    )
    config = configured(layout, "PostgreSQL", DATABASE_URL=url)
    (layout.root / "cut").write_bytes(whole.stdout[: len(whole.stdout) // 2])
    cut = replace(config.backup.dumps["postgres"], dump=("cat", str(layout.root / "cut")))
    cutting = replace(config, backup=replace(config.backup, dumps={"postgres": cut}))
    with pytest.raises(BackupFailed, match="refused by its check command: it exited with 1"):
        backup(layout, cutting)

    unchecked = replace(config, backup=replace(config.backup, dumps={"postgres": replace(cut, check=())}))
    made = backup(layout, unchecked)
    with pytest.raises(BackupFailed, match="could not be put back"):
        dumps.load(layout, unchecked, made.directory, ["postgres"])
    assert count(pg, "bot") == 2000


def test_a_postgres_that_cannot_be_reached_fails_the_backup_and_keeps_the_password(
    pg: Postgres, site: Site
) -> None:
    url = pg.url("there_is_none", password="s3cr%40t-word")
    text, _ = example("PostgreSQL")
    site.configure(extra=f"{text}env = {{ DATABASE_URL = {json.dumps(url)} }}\n")
    done = site.updater("backup", "create")
    assert done.code == 4
    assert "the dump postgres could not be made: it exited with 1" in done.err
    assert 'database "there_is_none" does not exist' in done.err
    assert "s3cr" not in done.text
    assert site.updater("--json", "backup", "list").json == []
    site.is_clean()


def test_mariadb_comes_back(layout: Layout) -> None:
    with mariadb() as server:
        server.sql(
            "CREATE TABLE t (id int PRIMARY KEY, note text CHARACTER SET utf8mb4); INSERT INTO t VALUES (1, _utf8mb4 x'C3BC270A'), (2, NULL)",
            "bot",
        )
        config = configured(layout, "MariaDB and MySQL", **server.env)
        made = backup(layout, config)
        server.sql("DROP TABLE t; CREATE TABLE newer (id int)", "bot")
        dumps.load(layout, config, made.directory, ["mariadb"])
        assert server.sql("SHOW TABLES", "bot") == ["t"]
        assert server.sql("SELECT id, hex(note) FROM t", "bot") == ["1\tC3BC270A", "2\tNULL"]


def test_redis_comes_back(layout: Layout) -> None:
    with redis() as server:
        server.ask("set", "kept", "1")
        server.ask("hset", "table", "field", "value")
        config = configured(
            layout, "Redis and Valkey", REDIS_PORT=str(server.port), SPARE_PORT=str(free_port())
        )
        made = backup(layout, config)
        assert made.manifest.warnings == ()
        server.ask("set", "kept", "2")
        server.ask("set", "newer", "1")
        server.ask("del", "table")
        dumps.load(layout, config, made.directory, ["redis"])
        assert server.ask("get", "kept") == "1"
        assert server.ask("keys", "newer") == ""
        assert server.ask("hget", "table", "field") == "value"
        assert server.ask("set", "writable", "1") == "OK", "it is no replica any more"
        assert "role:master" in server.ask("info", "replication")


def test_redis_takes_nothing_from_a_strange_server_on_the_spare_port(layout: Layout) -> None:
    """Not its data in the place of ours, and it is not shut down either."""
    with redis() as server, redis() as strange:
        server.ask("set", "ours", "1")
        strange.ask("set", "theirs", "1")
        config = configured(
            layout, "Redis and Valkey", REDIS_PORT=str(server.port), SPARE_PORT=str(strange.port)
        )
        made = backup(layout, config)
        with pytest.raises(BackupFailed) as raised:
            dumps.load(layout, config, made.directory, ["redis"])
        assert "Address already in use" in raised.value.details[0]
        assert (server.ask("keys", "*"), strange.ask("keys", "*")) == ("ours", "theirs")
        assert "role:master" in server.ask("info", "replication")


def test_a_redis_that_is_down_fails_the_backup(layout: Layout) -> None:
    program("redis-cli")
    config = configured(layout, "Redis and Valkey", REDIS_PORT=str(free_port()))
    with pytest.raises(BackupFailed) as raised:
        backup(layout, config)
    assert "Connection refused" in raised.value.details[0]


def test_the_shape_in_the_document_is_the_shape_of_the_configuration() -> None:
    found = re.search(r"```toml\n(\[backup\.dumps\.NAME\].*?)```", DOCUMENT.read_text(), re.S)
    assert found is not None
    keys = tomllib.loads(found[1])["backup"]["dumps"]["NAME"].keys()
    assert keys == {key.name for key in configkeys.DUMP}
