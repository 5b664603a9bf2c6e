-- The same tables as in Postgres. Times are milliseconds since the Unix epoch,
-- tags a JSON array or null.
CREATE TABLE links (
    version         INTEGER NOT NULL CHECK (version > 0),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    valid_since     INTEGER,
    valid_until     INTEGER,
    max_visits      INTEGER CHECK (max_visits >= 0),
    domain          INTEGER NOT NULL,
    redirect_status INTEGER NOT NULL CHECK (redirect_status IN (301, 302, 307, 308)),
    state           INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
    forward_query   INTEGER NOT NULL,
    link_id         BLOB    NOT NULL,
    create_id       BLOB    NOT NULL,
    slug            TEXT    NOT NULL,
    tenant          TEXT    NOT NULL,
    long_url        TEXT    NOT NULL,
    signature       BLOB    NOT NULL,
    title           TEXT,
    tags            TEXT,
    password_hash   TEXT,
    source          BLOB,
    change_id       BLOB,
    PRIMARY KEY (domain, slug)
) STRICT, WITHOUT ROWID;

CREATE TABLE shard (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
) STRICT;

CREATE TABLE prefix_owner (
    prefix   TEXT    PRIMARY KEY CHECK (length(prefix) = 2),
    epoch    INTEGER NOT NULL CHECK (epoch BETWEEN 1 AND 2097151),
    state    TEXT    NOT NULL CHECK (state IN ('owned', 'moved')),
    moved_to TEXT,
    CHECK ((state = 'moved') = (moved_to IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Ids are never given out twice, so that they order the changes.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    applied_at INTEGER,
    domain     INTEGER NOT NULL,
    slug       TEXT    NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (id) WHERE applied_at IS NULL;
CREATE INDEX outbox_applied ON outbox (applied_at, id) WHERE applied_at IS NOT NULL;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    version INTEGER NOT NULL,
    domain  INTEGER NOT NULL,
    slug    TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,
    old_url TEXT    NOT NULL,
    new_url TEXT    NOT NULL
) STRICT;
