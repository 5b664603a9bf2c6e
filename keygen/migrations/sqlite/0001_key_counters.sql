CREATE TABLE key_counter (
    prefix text PRIMARY KEY CHECK (length(prefix) = 2),
    next integer NOT NULL CHECK (next >= 0)
) STRICT, WITHOUT ROWID;
