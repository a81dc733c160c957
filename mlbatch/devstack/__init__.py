"""Private servers that stand in for Redshift, S3, Aurora and MLflow, on this machine."""
