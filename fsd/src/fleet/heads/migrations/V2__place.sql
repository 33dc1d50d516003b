-- What this database is called, by the host that first used it.
CREATE TABLE aether_place (
    one INTEGER PRIMARY KEY,
    name BYTEA NOT NULL
);
