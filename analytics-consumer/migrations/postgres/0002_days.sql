-- One row for each link and day. Its counts by hour and by referrer, country and so
-- on are packed, so that a click changes one row, and a row is bounded.
CREATE TABLE link_day (
    link_id uuid NOT NULL,
    day integer NOT NULL, -- since the Unix epoch
    partition smallint NOT NULL, -- of the click log: each row has one writer
    tenant text NOT NULL,
    clicks bigint NOT NULL,
    bots bigint NOT NULL, -- of these, by programs
    visitors bigint NOT NULL, -- what the sketch says
    counts bytea NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (link_id, day, partition)
) WITH (fillfactor = 80); -- room for the next version of a row on its page

-- Registers of a sketch do not shrink.
ALTER TABLE link_day ALTER COLUMN sketch SET STORAGE EXTERNAL;

CREATE TABLE tenant_day (
    tenant text NOT NULL,
    day integer NOT NULL,
    partition smallint NOT NULL,
    clicks bigint NOT NULL,
    bots bigint NOT NULL,
    counts bytea NOT NULL,
    PRIMARY KEY (tenant, day, partition)
) WITH (fillfactor = 80);

-- What a release before this one counts stays where it is, and is added to answers.
CREATE INDEX link_clicks_hour_tenant ON link_clicks_hour (tenant, hour);

-- Starts of a gateway up to this one are forgotten: batches of theirs come too late.
CREATE TABLE producer_floor (
    gateway text PRIMARY KEY,
    boot bigint NOT NULL
);
