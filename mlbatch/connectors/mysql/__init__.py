"""Aurora MySQL and MariaDB as sink: outputs and ledger in one database."""
