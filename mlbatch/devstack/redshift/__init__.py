"""A local Redshift: DuckDB behind Redshift's own protocols, for tests and for a laptop."""
