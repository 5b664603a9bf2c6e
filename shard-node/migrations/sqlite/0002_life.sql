-- The same as in Postgres.
CREATE INDEX links_of_tenant ON links (tenant, created_at, slug DESC) WHERE state <> 4;

CREATE INDEX links_of_source ON links (substr(source, 1, 16))
    WHERE source IS NOT NULL AND state <> 4;

CREATE INDEX links_expiring ON links (valid_until, slug, domain)
    WHERE valid_until IS NOT NULL AND state IN (1, 2);

CREATE TABLE visits (
    leased     INTEGER NOT NULL CHECK (leased >= 0),
    domain     INTEGER NOT NULL,
    granted    INTEGER NOT NULL CHECK (granted >= 0),
    link_id    BLOB    NOT NULL,
    lease_id   BLOB    NOT NULL,
    slug       TEXT    NOT NULL,
    returns    BLOB    NOT NULL,
    PRIMARY KEY (domain, slug)
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
    created_at INTEGER NOT NULL,
    source_id  BLOB    PRIMARY KEY CHECK (length(source_id) = 16),
    digest     BLOB    NOT NULL CHECK (length(digest) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_of_age ON claims (created_at);
