CREATE TABLE link_clicks_hour (
    link_id uuid NOT NULL,
    hour bigint NOT NULL, -- since the Unix epoch
    tenant text NOT NULL,
    clicks bigint NOT NULL,
    bots bigint NOT NULL, -- of these, by programs
    PRIMARY KEY (link_id, hour)
);

CREATE TABLE producer_state (
    gateway text NOT NULL,
    boot bigint NOT NULL,
    partition integer NOT NULL,
    high_water bigint NOT NULL, -- the highest sequence that is counted
    missing bigint[] NOT NULL, -- starts and ends of what is not, below it
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, boot, partition)
);

CREATE TABLE consumer_offset (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

CREATE TABLE counted_up_to (
    partition integer PRIMARY KEY,
    time_ms bigint NOT NULL -- of the newest click that is counted
);

CREATE TABLE dead_letter (
    topic text NOT NULL,
    partition integer NOT NULL,
    message_offset bigint NOT NULL,
    reason text NOT NULL,
    payload bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, message_offset)
);
