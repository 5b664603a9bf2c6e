-- One row for each link and day. Its counts by hour and by referrer, country and so
-- on are packed, so that a click changes one row, and a row is bounded.
CREATE TABLE link_day (
    link_id blob NOT NULL,
    day integer NOT NULL, -- since the Unix epoch
    partition integer NOT NULL, -- of the click log: each row has one writer
    tenant text NOT NULL,
    clicks integer NOT NULL,
    bots integer NOT NULL, -- of these, by programs
    visitors integer NOT NULL, -- what the sketch says
    counts blob NOT NULL,
    sketch blob NOT NULL,
    PRIMARY KEY (link_id, day, partition)
) STRICT;

CREATE TABLE tenant_day (
    tenant text NOT NULL,
    day integer NOT NULL,
    partition integer NOT NULL,
    clicks integer NOT NULL,
    bots integer NOT NULL,
    counts blob NOT NULL,
    PRIMARY KEY (tenant, day, partition)
) STRICT;

-- What a release before this one counted stays where it is, and is added to answers.
CREATE INDEX link_clicks_hour_tenant ON link_clicks_hour (tenant, hour);

-- Starts of a gateway up to this one are forgotten: batches of theirs come too late.
CREATE TABLE producer_floor (
    gateway text PRIMARY KEY,
    boot integer NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE producer_state ADD COLUMN updated_at integer NOT NULL DEFAULT 0; -- Unix, in seconds
UPDATE producer_state SET updated_at = unixepoch();
ALTER TABLE dead_letter ADD COLUMN received_at integer NOT NULL DEFAULT 0;
UPDATE dead_letter SET received_at = unixepoch();
