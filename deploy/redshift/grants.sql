-- By default every user of a cluster may take every role that is attached to it.
REVOKE ASSUMEROLE ON ALL FROM PUBLIC FOR ALL;
CREATE USER mlbatch_read PASSWORD DISABLE;
GRANT ASSUMEROLE ON 'arn:aws:iam::ACCOUNT:role/mlbatch-unload' TO mlbatch_read FOR UNLOAD;
GRANT USAGE ON SCHEMA SCHEMA_NAME TO mlbatch_read;
GRANT SELECT ON ALL TABLES IN SCHEMA SCHEMA_NAME TO mlbatch_read;
