-- The databases beside the shards'; each program makes its own tables.
CREATE DATABASE keygen;
CREATE DATABASE analytics;
