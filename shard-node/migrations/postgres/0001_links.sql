-- One row per link. Columns are ordered by alignment, so that no row carries
-- padding: 8 bytes, 4, 2, 1, then those of variable length. Empty tags are null,
-- since an empty array takes 16 bytes.
CREATE TABLE links (
    version         bigint      NOT NULL CHECK (version > 0),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    valid_since     timestamptz,
    valid_until     timestamptz,
    max_visits      bigint      CHECK (max_visits >= 0),
    domain          integer     NOT NULL,
    redirect_status smallint    NOT NULL CHECK (redirect_status IN (301, 302, 307, 308)),
    state           smallint    NOT NULL CHECK (state BETWEEN 1 AND 4),
    forward_query   boolean     NOT NULL,
    link_id         uuid        NOT NULL,
    create_id       uuid        NOT NULL,
    slug            text        NOT NULL COLLATE "C",
    tenant          text        NOT NULL COLLATE "C",
    long_url        text        NOT NULL COLLATE "C",
    signature       bytea       NOT NULL,
    title           text,
    tags            text[],
    password_hash   text        COLLATE "C",
    source          bytea,
    -- The last edit or deletion: the retry of one whose answer was lost meets itself.
    change_id       uuid,
    PRIMARY KEY (domain, slug)
);

-- Which shard this database is: a node that was pointed at another's is refused.
CREATE TABLE shard (
    id text NOT NULL COLLATE "C"
);
CREATE UNIQUE INDEX shard_is_one ON shard ((true));

-- The truth about who owns a prefix. All 3,844 are here.
CREATE TABLE prefix_owner (
    prefix   text    PRIMARY KEY COLLATE "C" CHECK (length(prefix) = 2),
    epoch    integer NOT NULL CHECK (epoch BETWEEN 1 AND 2097151),
    state    text    NOT NULL CHECK (state IN ('owned', 'moved')),
    moved_to text    COLLATE "C",
    CHECK ((state = 'moved') = (moved_to IS NOT NULL))
);

-- Changes that caches and gateways have yet to hear of, and those that the cache has
-- acknowledged in the last minutes: a replica that is promoted may lack them. Positions
-- are transaction ids: what lies below the oldest running one is complete.
CREATE TABLE outbox (
    id         bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    position   bigint      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_at timestamptz,
    domain     integer     NOT NULL,
    slug       text        NOT NULL COLLATE "C"
);
CREATE INDEX outbox_due ON outbox (position, id) WHERE applied_at IS NULL;
CREATE INDEX outbox_applied ON outbox (applied_at, id) WHERE applied_at IS NOT NULL;

-- Every change of a destination, for ever. Only ever appended to.
CREATE TABLE audit (
    id      bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL,
    version bigint      NOT NULL,
    domain  integer     NOT NULL,
    slug    text        NOT NULL COLLATE "C",
    tenant  text        NOT NULL COLLATE "C",
    old_url text        NOT NULL,
    new_url text        NOT NULL
);
