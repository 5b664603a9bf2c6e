-- What it takes to move a prefix to another shard while both serve.
ALTER TABLE prefix_owner
    -- At the shard that owns it: no write to it while this is set. A mover sets it; the
    -- shard takes it back when that time has passed.
    ADD COLUMN frozen_until timestamptz,
    -- At the shard that takes it: the epoch in which it owns it, once it is released.
    ADD COLUMN coming_epoch integer,
    -- Names the freeze, or who may write rows of a prefix that is on its way here.
    ADD COLUMN move_id uuid,
    ADD CHECK (frozen_until IS NULL OR state = 'owned' AND move_id IS NOT NULL),
    ADD CHECK (coming_epoch IS NULL OR state = 'moved' AND move_id IS NOT NULL
               AND coming_epoch BETWEEN 2 AND 2097151 AND coming_epoch > epoch);
CREATE INDEX prefix_coming ON prefix_owner (prefix) WHERE coming_epoch IS NOT NULL;
CREATE INDEX prefix_frozen ON prefix_owner (prefix) WHERE frozen_until IS NOT NULL;

-- Counts the changes of owners and epochs, so that the relay sees them by one number.
ALTER TABLE shard ADD COLUMN ownership bigint NOT NULL DEFAULT 0;

-- So that a prefix's rows are found. Of one link's changes each has its own version.
CREATE INDEX audit_of_slug ON audit (slug, version);

-- The prefix of the first slug that the source derives (`waypost_domain::Source::slug`):
-- the first eight bytes of a hash, modulo 3,844, as two digits.
CREATE FUNCTION prefix_of_source(source_id bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT substr(d.digits, d.n / 62 + 1, 1) || substr(d.digits, d.n % 62 + 1, 1)
    FROM (
        SELECT '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz' AS digits,
               (get_byte(h.hash, 0) * 684 + get_byte(h.hash, 1) * 2240
                + get_byte(h.hash, 2) * 3132 + get_byte(h.hash, 3) * 748
                + get_byte(h.hash, 4) * 2000 + get_byte(h.hash, 5) * 188
                + get_byte(h.hash, 6) * 256 + get_byte(h.hash, 7)) % 3844 AS n
        FROM (SELECT sha256('\x0100'::bytea || $1 || '\x00000000'::bytea) AS hash) AS h
    ) AS d;
END;
ALTER TABLE claims ADD COLUMN prefix text COLLATE "C"
    GENERATED ALWAYS AS (prefix_of_source(source_id)) STORED;
CREATE INDEX claims_of_prefix ON claims (prefix, (encode(source_id, 'hex') COLLATE "C"));
