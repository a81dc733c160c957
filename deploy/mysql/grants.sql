-- The nightly run. TRIGGER only shows whether a table has triggers, which decides how rows are written.
CREATE USER 'mlbatch_writer'@'%' REQUIRE SSL;
GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON DATABASE_NAME.* TO 'mlbatch_writer'@'%';
-- The first run of a job, and of one with a new column, makes its table: give these for then, or always.
GRANT CREATE, ALTER ON DATABASE_NAME.* TO 'mlbatch_writer'@'%';
-- Nothing else is needed but for throttle.history_length, whose figure MySQL and Aurora tell to users with PROCESS on *.*.
-- Whoever only looks: `mlbatch plan`, `list`, `show` and `status`.
CREATE USER 'mlbatch_reader'@'%' REQUIRE SSL;
GRANT SELECT ON DATABASE_NAME.* TO 'mlbatch_reader'@'%';
