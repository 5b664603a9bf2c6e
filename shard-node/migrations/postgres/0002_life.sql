-- A tenant's links, newest first by reading backwards: new links go to the index's
-- right end, whose pages get full. One that is dead is in no list.
CREATE INDEX links_of_tenant ON links (tenant, created_at, slug DESC) WHERE state <> 4;

-- What a create that may be repeated is found by: the source without its digest.
CREATE INDEX links_of_source ON links (substring(source FROM 1 FOR 16))
    WHERE source IS NOT NULL AND state <> 4;

-- What will expire, or has and is not yet a tombstone.
CREATE INDEX links_expiring ON links (valid_until, slug, domain)
    WHERE valid_until IS NOT NULL AND state IN (1, 2);

-- Visits of links with `max_visits` that were leased to gateways. A row is about one
-- life of its slug, and the first lease of the next one begins it anew.
CREATE TABLE visits (
    leased     bigint  NOT NULL CHECK (leased >= 0),
    domain     integer NOT NULL,
    granted    integer NOT NULL CHECK (granted >= 0), -- by the last lease
    link_id    uuid    NOT NULL,
    lease_id   uuid    NOT NULL, -- the last one
    slug       text    NOT NULL COLLATE "C",
    -- The latest requests that gave visits back, 16 bytes each: none does so twice.
    returns    bytea   NOT NULL,
    PRIMARY KEY (domain, slug)
);

-- Requests with an Idempotency-Key whose link may live at another shard.
CREATE TABLE claims (
    created_at timestamptz NOT NULL,
    source_id  bytea       PRIMARY KEY CHECK (length(source_id) = 16),
    digest     bytea       NOT NULL CHECK (length(digest) = 16)
);
CREATE INDEX claims_of_age ON claims (created_at);
