CREATE TABLE key_counter (
    prefix text COLLATE "C" PRIMARY KEY CHECK (length(prefix) = 2),
    next bigint NOT NULL CHECK (next >= 0)
);
