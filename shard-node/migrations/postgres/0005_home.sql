-- The region that the shard map last named as this shard's home; empty: of a release that
-- did not note it.
ALTER TABLE shard ADD COLUMN home text NOT NULL DEFAULT '';
