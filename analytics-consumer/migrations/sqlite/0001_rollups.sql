CREATE TABLE link_clicks_hour (
    link_id blob NOT NULL,
    hour integer NOT NULL, -- since the Unix epoch
    tenant text NOT NULL,
    clicks integer NOT NULL,
    bots integer NOT NULL, -- of these, by programs
    PRIMARY KEY (link_id, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE producer_state (
    gateway text NOT NULL,
    boot integer NOT NULL,
    partition integer NOT NULL,
    high_water integer NOT NULL, -- the highest sequence that is counted
    missing text NOT NULL, -- starts and ends of what is not, below it
    PRIMARY KEY (gateway, boot, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_offset (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset integer NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE counted_up_to (
    partition integer PRIMARY KEY,
    time_ms integer NOT NULL -- of the newest click that is counted
) STRICT;

CREATE TABLE dead_letter (
    topic text NOT NULL,
    partition integer NOT NULL,
    message_offset integer NOT NULL,
    reason text NOT NULL,
    payload blob NOT NULL,
    PRIMARY KEY (topic, partition, message_offset)
) STRICT, WITHOUT ROWID;
