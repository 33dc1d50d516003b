-- One row a record. Nothing but unique keys is asked of the database, so distributed ones that speak PostgreSQL do.
CREATE TABLE aether_heads (
    session BYTEA NOT NULL,
    seq BIGINT NOT NULL,
    nonce BYTEA NOT NULL,
    record BYTEA NOT NULL,
    PRIMARY KEY (session, seq)
);
CREATE TABLE aether_beats (
    host BYTEA PRIMARY KEY,
    beat BIGINT NOT NULL
);
