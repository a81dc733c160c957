"""Amazon Redshift as warehouse, over the Data API or over a connection of redshift-connector."""
