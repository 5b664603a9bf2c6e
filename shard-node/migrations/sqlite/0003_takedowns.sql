-- The same as in Postgres.
ALTER TABLE links ADD COLUMN state_before_block INTEGER;
