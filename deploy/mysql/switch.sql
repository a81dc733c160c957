-- `mlbatch switch` gives tables other names, which MySQL allows to whoever may drop them. Give this for a switch and take
-- it back, or give it to a user of its own who has the writer's rights as well, named in a profile for switches alone.
GRANT DROP ON DATABASE_NAME.* TO 'mlbatch_writer'@'%';
-- REVOKE DROP ON DATABASE_NAME.* FROM 'mlbatch_writer'@'%';
