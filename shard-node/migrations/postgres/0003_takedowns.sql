-- What a link was when it was taken down, so that lifting that restores it and no more.
-- Null where it is not taken down, or was before this column came, or elsewhere.
ALTER TABLE links ADD COLUMN state_before_block smallint;
