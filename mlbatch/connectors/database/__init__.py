"""What the SQL databases that hold outputs and ledger have in common, in SQLAlchemy."""
