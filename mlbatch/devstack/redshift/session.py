"""One client's session: its transaction, its parameters, its temporary tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from mlbatch.devstack.redshift import statement as statements
from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.cluster import SUPERUSER, Cluster
from mlbatch.devstack.redshift.command_tag import changed, is_change
from mlbatch.devstack.redshift.copying import copy
from mlbatch.devstack.redshift.faults import Dropped
from mlbatch.devstack.redshift.interruption import Interruption
from mlbatch.devstack.redshift.literals import sql_literal
from mlbatch.devstack.redshift.parameters import Parameters
from mlbatch.devstack.redshift.refusal import Refusal, translated, unsupported
from mlbatch.devstack.redshift.result_types import recast, redshift_schema
from mlbatch.devstack.redshift.statement import IGNORED, Statement
from mlbatch.devstack.redshift.unload import unload
from mlbatch.dialect import CONNECTION_SETTINGS

VERSION = (
    "PostgreSQL 8.0.2 on x86_64-pc-linux-gnu, compiled by GCC, Redshift 1.0.0 (mlbatch stand-in)"
)
DATABASE = "dev"
READ_ROWS = 10_000
_ABORTED = "current transaction is aborted, commands ignored until end of transaction block"
_PREPARATION = (
    *CONNECTION_SETTINGS,
    "SET python_enable_replacements = false",  # or a table's name finds our variables
)


class Session:
    """Statements of one client, one after another; `interrupt` may come from any thread."""

    def __init__(
        self,
        engine: Cluster,
        cursor: duckdb.DuckDBPyConnection,
        pid: int,
        user: str,
        *,
        may_drop: bool = True,
    ) -> None:
        """``cursor`` becomes the session's own."""
        self.engine, self.pid, self.user = engine, pid, user
        self.cursor = cursor
        self.in_transaction = False
        self.failed = False
        self.parameters = Parameters(of_user=dict(engine.settings_of(user)))
        self.last_copied = self.last_unloaded = 0
        self.last_copy = self.last_unload = self.query = self.last_query = -1
        self._may_drop = may_drop
        self._running: Interruption | None = None
        self._closed = False
        self._guard = threading.Lock()
        for setting in _PREPARATION:
            cursor.execute(setting)
        self._apply_parameters()

    def describe(
        self, sql: str, parameter_count: int = 0, samples: Sequence[object] = ()
    ) -> pa.Schema | None:
        """The result's columns without running anything; ``samples`` type the parameters."""
        values = [*samples, *[None] * (parameter_count - len(samples))]
        with self._translating():
            statement = statements.one_statement(statements.bind_positions(sql, values))
            self._refuse_aborted(statement)
            if statement.verb in ("SHOW", "EXPLAIN"):
                name = "QUERY PLAN" if statement.verb == "EXPLAIN" else _shown(statement)
                return pa.schema([pa.field(name.lower(), pa.string())])
            if not statement.is_query:
                return None
            return self.schema(self._duckdb_query(statement.sql, self._system_value))

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Run one statement. Raises Refusal, and Dropped when the client shall get no reply."""
        if self._may_drop and self.engine.faults.take("drop", sql):
            raise Dropped
        with self._interruptible(), self._translating():
            self._misbehave(sql)
            self.last_query, self.query = self.query, self.engine.next_query()
            bound = statements.bind_positions(sql, parameters) if parameters else sql
            answer = self._run(statements.one_statement(bound))
        if self._may_drop and self.engine.faults.take("lose_reply", sql):
            raise Dropped
        return answer

    def interrupt(self) -> bool:
        """End what runs now; False when nothing does."""
        running = self._running
        if running is None:
            return False
        running.stop()
        return True

    def close(self) -> None:
        """Roll back and give up the temporary tables."""
        self.interrupt()
        with self._guard:
            if not self._closed:
                self._closed = True
                self.engine.forget(self.pid)
                self.cursor.close()

    @property
    def interruption(self) -> Interruption:
        """The run of the statement now under way."""
        if self._running is None:
            raise Refusal("XX000", "no statement is running")
        return self._running

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        with self._guard:
            if self._closed:
                raise Refusal("57P01", "terminating connection due to administrator command")
            try:
                with Interruption(self.cursor.interrupt, self.parameters.timeout_ms) as running:
                    self._running = running
                    yield
            except Refusal:
                self.failed = self.in_transaction
                raise
            finally:
                self._running = None

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Refusal:
            self.failed = self.in_transaction
            raise
        except Exception as error:
            # A defect of ours too must reach the client, which would wait for ever otherwise.
            self.failed = self.in_transaction
            raise translated(error) from error

    def _misbehave(self, sql: str) -> None:
        delay = self.engine.faults.take("delay", sql)
        if delay:
            self.interruption.wait(delay.seconds)
        error = self.engine.faults.take("error", sql)
        if error:
            raise Refusal(error.sqlstate, error.message)

    def _refuse_aborted(self, statement: Statement) -> None:
        if self.failed and statement.verb not in ("ROLLBACK", "COMMIT"):
            raise Refusal("25P02", _ABORTED)

    def _run(self, statement: Statement) -> Answer:
        self._refuse_aborted(statement)
        if statement.is_query:
            return self._select(statement.sql)
        if statement.verb in IGNORED:
            return Answer(statement.verb)
        special = _SPECIAL.get(statement.verb)
        if special:
            return special(self, statement)
        if is_change(statement):
            return self._change(statement)
        if statement.sql.strip() == "":
            return Answer("")
        raise _unknown(statement)

    def _select(self, sql: str) -> Answer:
        table = self.read(self.duckdb_query(sql)).read_all()
        return Answer("SELECT", table, rows=table.num_rows)

    def schema(self, duckdb_sql: str) -> pa.Schema:
        """The columns of a query of DuckDB's."""
        return redshift_schema(self.cursor.sql(duckdb_sql).limit(0).to_arrow_table().schema)

    def read(self, duckdb_sql: str) -> pa.RecordBatchReader:
        """The rows of a query of DuckDB's, as they come."""
        relation = self.cursor.sql(duckdb_sql)
        schema = redshift_schema(relation.limit(0).to_arrow_table().schema)
        batches = recast(iter(relation.to_arrow_reader(READ_ROWS)), schema)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def duckdb_query(self, select: str) -> str:
        """DuckDB's text of a query."""
        return self._duckdb_query(select, self.system_call)

    def _duckdb_query(self, sql: str, system: statements.SystemCall) -> str:
        return statements.for_duckdb(sql, system)[0]

    def _change(self, statement: Statement) -> Answer:
        count = 0
        with self.atomically():
            for sql in statements.for_duckdb(statement.sql, self.system_call):
                found = self.cursor.execute(sql).fetchall()
                count = found[0][0] if found and isinstance(found[0][0], int) else 0
        if statement.verb == "TRUNCATE" and self.in_transaction:
            self._end("COMMIT")
        return changed(statement, count)

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """A transaction around several steps, unless the client has one open."""
        if self.in_transaction:
            yield
            return
        self.cursor.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self.cursor.execute("COMMIT")

    def begin(self, _: Statement) -> Answer:
        """BEGIN."""
        if self.in_transaction:
            return Answer("BEGIN", notices=("there is already a transaction in progress",))
        self.cursor.execute("BEGIN")
        self.in_transaction = True
        return Answer("BEGIN")

    def end(self, statement: Statement) -> Answer:
        """COMMIT or ROLLBACK; a failed transaction is rolled back by either."""
        if not self.in_transaction:
            return Answer(statement.verb, notices=("there is no transaction in progress",))
        verb = "ROLLBACK" if self.failed else statement.verb
        self._end(verb)
        return Answer(verb)

    def _end(self, verb: str) -> None:
        self.in_transaction = self.failed = False
        if verb == "COMMIT":
            self.cursor.execute("COMMIT")
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        try:
            self.cursor.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # DuckDB did so by itself

    def set(self, statement: Statement) -> Answer:
        """SET name TO value."""
        if self.parameters.set(statement.words) in _APPLIED:
            self._apply_parameters()
        return Answer("SET")

    def reset(self, statement: Statement) -> Answer:
        """RESET name."""
        self.parameters.reset(statement.words)
        self._apply_parameters()
        return Answer("RESET")

    def alter(self, statement: Statement) -> Answer:
        """ALTER USER name SET parameter TO value, for later sessions; ALTER of anything else."""
        if [word.value for word in statement.words[1:4:2]] != ["USER", "SET"]:
            return self._change(statement)
        kept = self.engine.settings_of(statement.words[2].value.lower())
        Parameters(kept).set(statement.words[3:])
        return Answer("ALTER USER")

    def _apply_parameters(self) -> None:
        for name, value in (
            ("search_path", self.parameters.schemas),
            ("TimeZone", self.parameters.zone),
        ):
            self.cursor.execute(f"SET {name} = {sql_literal(value)}")

    def show(self, statement: Statement) -> Answer:
        """SHOW name."""
        name = _shown(statement)
        table = pa.table({name.lower(): pa.array([self.parameters.show(name)])})
        return Answer("SHOW", table, rows=1)

    def unload(self, statement: Statement) -> Answer:
        """UNLOAD."""
        return unload(self, statement.sql)

    def copy(self, statement: Statement) -> Answer:
        """COPY."""
        return copy(self, statement.sql)

    def explain(self, statement: Statement) -> Answer:
        """EXPLAIN query, with DuckDB's plan."""
        select = statement.sql[len("EXPLAIN") :]
        found = self.cursor.sql(self.duckdb_query(select)).explain()
        lines = found.splitlines()
        return Answer("EXPLAIN", pa.table({"query plan": lines}), rows=len(lines))

    def cancel(self, statement: Statement) -> Answer:
        """CANCEL pid."""
        numbers = [int(word.raw) for word in statement.words[1:] if word.kind == "number"]
        if len(numbers) != 1:
            raise Refusal("42601", 'syntax error at or near "CANCEL"')
        self.engine.cancel(numbers[0])
        return Answer("CANCEL")

    def system_call(self, name: str, arguments: Sequence[object]) -> object:
        """The value of a system function, which may do something."""
        if name in ("pg_cancel_backend", "pg_terminate_backend") and arguments:
            return int(self.engine.cancel(int(str(arguments[0]))))
        return self._system_value(name, arguments)

    def _system_value(self, name: str, arguments: Sequence[object]) -> object:
        if name == "current_setting":
            return self.parameters.show(str(arguments[0]) if arguments else "")
        if name == "create_table":
            return self.create_table_sql(str(arguments[0]), str(arguments[1]))
        values: dict[str, object] = {
            "pg_last_copy_count": self.last_copied,
            "pg_last_unload_count": self.last_unloaded,
            "pg_last_query_id": self.last_query,
            "pg_last_copy_id": self.last_copy,
            "pg_last_unload_id": self.last_unload,
            "pg_backend_pid": self.pid,
            "current_user": self.user,
            "current_user_id": SUPERUSER,
            "current_database": DATABASE,
            "current_schema": self.parameters.schemas.split(",")[0],
            "version": VERSION,
        }
        return values.get(name, 0)

    def create_table_sql(self, schema: str, table: str) -> str:
        """DuckDB's definition of a table that this session sees."""
        found = self.cursor.execute(
            "SELECT sql FROM duckdb_tables() WHERE lower(table_name) = ? AND ? IN ('', schema_name)"
            " ORDER BY temporary DESC",
            [table.lower(), schema],
        ).fetchone()
        if found is None:
            raise Refusal("42P01", f'relation "{table}" does not exist')
        return str(found[0])


def _shown(statement: Statement) -> str:
    rest = statement.words[1:]
    if not rest:
        raise Refusal("42601", 'syntax error at or near "SHOW"')
    return rest[0].raw.strip('"')


def _unknown(statement: Statement) -> Refusal:
    if statement.verb in ("CALL", "DECLARE", "FETCH", "CLOSE", "PREPARE", "EXECUTE"):
        return unsupported(f"{statement.verb} is not supported by this stand-in")
    return Refusal("42601", f'syntax error at or near "{statement.words[0].raw}"')


_APPLIED = ("search_path", "timezone")
"""What DuckDB has to know too."""
_SPECIAL: dict[str, Callable[[Session, Statement], Answer]] = {
    "BEGIN": Session.begin,
    "COMMIT": Session.end,
    "ROLLBACK": Session.end,
    "SET": Session.set,
    "ALTER": Session.alter,
    "RESET": Session.reset,
    "SHOW": Session.show,
    "EXPLAIN": Session.explain,
    "CANCEL": Session.cancel,
    "UNLOAD": Session.unload,
    "COPY": Session.copy,
}
