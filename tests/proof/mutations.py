"""What `proof.mutants` breaks: plausible slips in our own code, each with the tests that must notice.

A mutant is told by text that is there once, so that a change of the code is a change here.
"""

from __future__ import annotations

from dataclasses import dataclass

SINK = "tests/seams/test_sink.py"
MYSQL = "tests/seams/test_mysql.py"
RESUME = "tests/flows/test_resume.py"
INFER = "tests/flows/test_inference.py"
STORAGE = "tests/seams/test_storage.py"
SNAPSHOT = "tests/unit/test_snapshot.py"
OLDER = f"{SINK}::test_a_commit_of_an_older_epoch_changes_nothing"
ELSEWHERE = f"{SINK}::test_a_commit_at_another_position_changes_nothing"
TAKE_OVER = f"{SINK}::test_every_take_over_fences"
LOST = f"{MYSQL}::test_a_lost_connection_loses_nothing_and_repeats_nothing"
REPLACED = "test_an_object_that_was_replaced_is_refused"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One thing broken."""

    name: str
    file: str
    old: str
    new: str
    tests: str


NURSING = "tests/unit/test_nurse.py"
AT_TAKE_OVER = "tests/seams/test_mysql_takeover.py"
NOT_SURE = f"{AT_TAKE_OVER}::test_a_connection_that_is_not_surely_the_recorded_one_is_left_alone"
SHORT = "tests/flows/test_shortages.py"
NURSE, ENDING = "mlbatch/nurse.py", "mlbatch/connectors/mysql/takeover.py"
SQLITE = "mlbatch/connectors/sqlite.py"
SESSION = "mlbatch/connectors/mysql/session.py"
STATEMENTS = "mlbatch/connectors/mysql/statements.py"
STORE = "mlbatch/connectors/database/ledger_store.py"
FENCE = "AND part_no = :part_no AND epoch = :epoch AND done = :low"
MUTANTS = (
    Mutant("no epoch in the compare, SQLite", SQLITE, FENCE,
           "AND part_no = :part_no AND done = :low", OLDER),
    Mutant("no position in the compare, SQLite", SQLITE, FENCE,
           "AND part_no = :part_no AND epoch = :epoch", ELSEWHERE),
    Mutant("no epoch in the compare, MySQL", STATEMENTS,
           "AND epoch = %(epoch)s AND done = %(low)s", "AND done = %(low)s", OLDER),
    Mutant("no position in the compare, MySQL", STATEMENTS,
           "AND epoch = %(epoch)s AND done = %(low)s", "AND epoch = %(epoch)s", ELSEWHERE),
    Mutant("an unknown commit is repeated blindly", SESSION,
           "if attempt > 1 and", "if attempt > 99 and", LOST),
    Mutant("an unknown commit is believed", SESSION,
           '["done"] >= batch.high', '["done"] >= batch.low', LOST),
    Mutant("warnings of LOAD DATA are passed over", SESSION,
           "if not cursor.warning_count:", "if True:",
           f"{MYSQL}::test_a_value_that_would_be_rounded_is_refused_by_either_way"),
    Mutant("a lost connection ends the run", SESSION,
           "if is_passing(error):", "if False:", LOST),
    Mutant("rows are loaded although a trigger is there", SESSION,
           "(statements.TRIGGERS, statements.CHILDREN)", "(statements.CHILDREN,)",
           f"{MYSQL}::test_the_way_follows_server_settings_and_table"),
    Mutant("keys are padded", "mlbatch/connectors/database/tables.py",
           "utf8mb4_nopad_bin", "utf8mb4_bin",
           f"{MYSQL}::test_keys_that_differ_in_case_accent_or_space_are_different"),
    Mutant("take-over fences nothing", STORE,
           "            _fence(connection, lease, epoch)\n        return lease",
           "        return lease", TAKE_OVER),
    Mutant("release fences nothing", STORE,
           "                _fence(connection, lease, epoch)\n\n    def create",
           "                pass\n\n    def create", TAKE_OVER),
    Mutant("a run's state is not compared", STORE,
           ", RUN.c.state == run.state.value", "",
           f"{SINK}::test_adopting_is_done_once"),
    Mutant("a run's epoch is not compared", STORE,
           ", RUN.c.epoch == run.epoch", "", SINK),
    Mutant("a live owner is disturbed", STORE,
           '> self._database.now():\n            message = f"{lease.table} is being',
           '< self._database.now():\n            message = f"{lease.table} is being',
           f"{RESUME}::test_a_live_owner_is_not_disturbed"),
    Mutant("any heartbeat counts", STORE,
           ", LEASE.c.epoch == lease.epoch)\n                .values(heartbeat_at",
           ")\n                .values(heartbeat_at",
           f"{SINK}::test_a_heartbeat_tells_whose_the_lease_is"),
    Mutant("the lease stays after the end", STORE,
           "_free(connection, new.output_table, new.generation, run.epoch, epoch)\n            return",
           "return", f"{SINK}::test_finishing_moves_the_watermark_and_frees_the_lease"),
    Mutant("conservation is not checked", "mlbatch/ledger.py",
           "if not part.is_complete or accounted != part.rows_expected:", "if False:",
           "tests/unit/test_ledger.py"),
    Mutant("a batch may lose rows", "mlbatch/ledger.py",
           "if accounted != self.high - self.low:", "if False:", "tests/unit/test_ledger.py"),
    Mutant("the table is not compared with the ledger", "mlbatch/inference.py",
           "if rows != totals.written or found != totals.checksum:", "if False:",
           f"{INFER}::test_a_row_that_somebody_else_wrote_is_found"),
    Mutant("the watermark passes the frozen instant", "mlbatch/inference.py",
           "moved = advance(mark, run.new.watermark_high, run.highest_cursor)",
           "moved = advance(mark, run.highest_cursor or run.new.watermark_high,"
           " run.highest_cursor)",
           f"{INFER}::test_a_row_that_changes_all_the_time_is_still_scored"),
    Mutant("a sleeper takes another's epoch for its own", "mlbatch/inference.py",
           "if found.epoch != run.epoch:", "if False:",
           f"{RESUME}::test_a_sleeper_that_wakes_after_its_last_batch_leaves_the_end_to_the_other"),
    Mutant("a repair moves the watermark", "mlbatch/inference.py",
           "if run.new.kind is not RunKind.REPAIR:", "if True:",
           "tests/flows/test_repair.py::test_a_repair_does_not_pass_over_what_it_did_not_read"),
    Mutant("the window leaves its first instant out", "mlbatch/query.py",
           "exp.GTE(this=_column(cursor)", "exp.GT(this=_column(cursor)",
           "tests/unit/test_query.py"),
    Mutant("a replaced part is read", "mlbatch/connectors/folder.py",
           "if self.stat(uri).etag != etag:", "if False:", f"{STORAGE}::{REPLACED}"),
    Mutant("a replaced object is read", "mlbatch/connectors/s3.py",
           "**self._place(uri), IfMatch=etag, **more", "**self._place(uri), **more",
           f"{STORAGE}::{REPLACED}"),
    Mutant("manifest and warehouse may differ", "mlbatch/unloading.py",
           "if promised != unloaded.rows:", "if False:", SNAPSHOT),
    Mutant("footers are believed", "mlbatch/unloading.py",
           "if rows != entry.rows:", "if False:", SNAPSHOT),
    Mutant("quarantined rows keep their prediction", "mlbatch/scoring.py",
           "gone[list(faults)] = True", "pass",
           f"{INFER}::test_a_row_that_turns_bad_loses_its_old_prediction"),
    Mutant("a done slot is done again", "mlbatch/planner.py",
           "    if request.slot is None:\n        return None\n    return next(",
           "    if True:\n        return None\n    return next(",
           "tests/unit/test_planner.py"),
    Mutant("model files are believed", "mlbatch/connectors/skops_file.py",
           "or _sha256(file) != registered", "", "tests/unit/test_learning.py::test_85_a_changed_file_is_refused"),
    Mutant("reconcile removes any number of rows", "mlbatch/repair.py",
           "if len(found.gone) > limit:", "if False:",
           "tests/flows/test_repair.py"
           "::test_rows_that_vanished_lose_their_prediction_but_not_too_many"),
    Mutant("the position moves after the rows, SQLite", SQLITE,
           '            self._move(batch)\n            reach("after_move")\n'
           "            self._connection.executemany(self._upsert, _tuples(batch.upserts))\n",
           "            self._connection.executemany(self._upsert, _tuples(batch.upserts))\n"
           "        with self._transaction():\n            self._move(batch)\n", ELSEWHERE),
    Mutant("the position moves after the rows, MySQL", SESSION,
           '            self._move(connection, batch)\n            reach("after_move")\n'
           "            self._write(connection, batch)\n",
           "            self._write(connection, batch)\n"
           "        with self._transaction() as connection:\n"
           "            self._move(connection, batch)\n", ELSEWHERE),
    Mutant("a part's row is read without its lock", STATEMENTS,
           "AND part_no = %s FOR UPDATE", "AND part_no = %s",
           f"{MYSQL}::test_a_position_waits_for_what_an_older_connection_still_does"),
    Mutant("take-over fences runs but not their parts", STORE,
           "        connection.execute(update(PART).where(PART.c.run_id.in_(ids))"
           ".values(epoch=epoch))\n", "",
           f"{RESUME}::test_a_sleeper_that_wakes_after_a_take_over_writes_nothing"),
    Mutant("take-over fences one run only", STORE,
           ".order_by(RUN.c.run_id)).all()", ".order_by(RUN.c.run_id)).all()[:1]",
           f"{SINK}::test_a_take_over_fences_every_unfinished_run_and_its_parts"),
    Mutant("a run that is given up keeps its parts' epoch", STORE,
           "    connection.execute(update(PART).where(PART.c.run_id == run.run_id)"
           ".values(epoch=epoch))\n", "", f"{SINK} {INFER}"),
    Mutant("a run is created without the lease", STORE,
           "            _hold(connection, lease, new.run_id)\n", "", SINK),
    Mutant("the watermark moves to the frozen instant, whatever was read", "mlbatch/window.py",
           "reached = min(utc(frozen_high), utc(highest_cursor))", "reached = utc(frozen_high)",
           "tests/unit/test_window.py"),
    Mutant("the watermark goes back", "mlbatch/window.py",
           "if current is not None and current.value >= reached:", "if False:",
           "tests/unit/test_window.py"),
    Mutant("the overlap is ignored", "mlbatch/window.py",
           "since=self.value - overlap", "since=self.value", "tests/unit/test_window.py"),
    Mutant("a delta always has an end", "mlbatch/planner.py",
           "window(delta.overlap, until)", "window(delta.overlap, until or facts.now)",
           "tests/unit/test_planner.py"),
    Mutant("the sum of a run is not checked", "mlbatch/inference.py",
           "totals = check_conservation(", "totals = Totals.of(",
           f"{INFER}::test_a_row_that_is_counted_twice_is_found_at_the_end"),
    Mutant("checksums are not compared", "mlbatch/inference.py",
           "if rows != totals.written or found != totals.checksum:",
           "if rows != totals.written:",
           f"{INFER}::test_a_row_that_somebody_else_wrote_is_found"),
    Mutant("a manifest's total is believed", "mlbatch/snapshot.py",
           "if promised is not None and promised != counted:", "if False:", SNAPSHOT),
    Mutant("lengths are believed", "mlbatch/unloading.py",
           "if stored.bytes != entry.bytes:", "if False:", SNAPSHOT),
    Mutant("a repeated key is unloaded twice", "mlbatch/inference.py",
           "newest_of=view.key if probe.duplicates else None", "newest_of=None",
           f"{INFER}::test_100_101_the_newest_row_of_a_repeated_key_wins_and_it_is_said"),
    Mutant("a repeated key in a batch is written twice", "mlbatch/judging.py",
           "row not in winners for row", "False for row", "tests/unit/test_judging.py"),
    Mutant("deleted rows keep their prediction", "mlbatch/scoring.py",
           "gone = dead.copy()", "gone = np.zeros_like(dead)",
           f"{INFER}::test_deleted_rows_lose_their_prediction"),
    Mutant("rows are not written in the order of their keys", "mlbatch/scoring.py",
           'return batch.sort_by([(name, "ascending") for name in key])', "return batch",
           f"{INFER}::test_rows_and_deletes_reach_the_sink_in_the_order_of_their_keys"),
    Mutant("a model's card is believed", "mlbatch/connectors/skops_file.py",
           "if _sha256(path) != digest:", "if False:",
           "tests/unit/test_learning.py::test_85_a_changed_file_is_refused"),
    Mutant("strikes are forgotten with the runner", NURSE,
           "        self._ledger.strike(self._run, now)\n", "", NURSING),
    Mutant("a part that kills is searched for ever", NURSE,
           "if then.set_aside is not None and before.set_aside is not None:", "if False:", NURSING),
    Mutant("a part that was given up is scored by the next run", NURSE,
           "if strikes.given_up_from is not None:\n            return replace",
           "if False:\n            return replace", NURSING),
    Mutant("any number of parts may be set aside", NURSE,
           "if not job.limits.allows_parts(len(aside), len(parts)):", "if False:", NURSING),
    Mutant("rows of a part that is set aside keep their prediction", "mlbatch/quarantine.py",
           "deletes=sorted_by(batch.take(named), table.key)",
           "deletes=batch.slice(0, 0)", NURSING),
    Mutant("strikes are not fenced", STORE,
           "if connection.scalar(epoch) != run.epoch:", "if False:",
           "tests/flows/test_poison.py::test_strikes_are_kept_by_run_and_fenced"),
    Mutant("connections are not on record", SESSION,
           "            takeover.record(self._connection, self._run)\n", "",
           f"{AT_TAKE_OVER}::test_what_an_orphan_holds_is_ended"),
    Mutant("a live owner's connections are ended", ENDING,
           "if holder is not None and holder.owner_id != owner.owner_id:", "if False:",
           f"{AT_TAKE_OVER}::test_the_connections_of_a_live_owner_are_left_alone"),
    Mutant("another server's ids are taken for this one's", ENDING,
           "AND generation = %s AND server = {_SERVER}", "AND generation = %s", NOT_SURE),
    Mutant("whoever has the id now is ended", ENDING,
           'holds = scalar(connection, "SELECT IS_USED_LOCK(%s)", token) == number',
           "holds = True", NOT_SURE),
    Mutant("user and client of a connection are not compared", ENDING,
           "and living[0][:2] == (user, client)", "", NOT_SURE),
    Mutant("a connection that is older than its record is ended", ENDING,
           "and living[0][2] <= age + 1", "", NOT_SURE),
    Mutant("connections of other tables are ended", ENDING,
           "WHERE output_table = %s AND generation = %s AND server",
           "WHERE %s <> '' AND generation = %s AND server",
           f"{AT_TAKE_OVER}::test_other_tables_are_left_alone"),
    Mutant("a full disk ends a run for good", SQLITE,
           "if _is_shortage(error, path):", "if False:",
           f"{SHORT}::test_a_table_that_may_not_grow"),
)  # fmt: skip
