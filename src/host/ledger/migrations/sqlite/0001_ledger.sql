-- Instants are integer nanoseconds since the Unix epoch, memory is whole MiB, CPU is millicpu (1000 = one vCPU).

CREATE TABLE org (
    id   TEXT PRIMARY KEY NOT NULL,
    plan TEXT
) STRICT;

-- The highest number that was given: never given twice, deleted ones included.
CREATE TABLE epoch_last (
    single INTEGER PRIMARY KEY NOT NULL CHECK (single = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO epoch_last (single, number) VALUES (1, 0);

-- Numbers are Unix times in ns where they can be, so that another ledger goes on above them.
CREATE TABLE epoch (
    number    INTEGER PRIMARY KEY NOT NULL,
    id        BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    sandbox   TEXT NOT NULL,
    minted_at INTEGER NOT NULL
) STRICT;
CREATE INDEX epoch_sandbox ON epoch (sandbox, number);

-- Each call of the platform once, with its first answer.
CREATE TABLE event (
    id      TEXT PRIMARY KEY NOT NULL,
    sandbox TEXT NOT NULL,
    kind    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    epoch   INTEGER REFERENCES epoch (number),
    answer  TEXT
) STRICT;
CREATE INDEX event_sandbox ON event (sandbox, at);

-- One row per sandbox: what has been credited, and what the next decision needs. Its version is the lock of the books.
CREATE TABLE account (
    sandbox           TEXT PRIMARY KEY NOT NULL,
    org               TEXT NOT NULL,
    version           INTEGER NOT NULL,
    boot_id           BLOB CHECK (length(boot_id) = 16),
    active_seconds    INTEGER NOT NULL,
    active_carry      INTEGER NOT NULL,
    mib_seconds       INTEGER NOT NULL,
    mib_carry         INTEGER NOT NULL,
    millicpu_seconds  INTEGER NOT NULL,
    millicpu_carry    INTEGER NOT NULL,
    state             BLOB NOT NULL,
    updated_at        INTEGER NOT NULL
) STRICT;

-- `reach` is an upper bound of a row's length, in few classes: what overlaps a window began at most that long before it.
CREATE TABLE scale_event (
    id         TEXT PRIMARY KEY NOT NULL,
    sandbox    TEXT NOT NULL,
    epoch      BLOB CHECK (length(epoch) = 16),
    org        TEXT NOT NULL,
    memory_mib INTEGER NOT NULL CHECK (memory_mib BETWEEN 0 AND 4294967296),
    cpu_millis INTEGER NOT NULL CHECK (cpu_millis BETWEEN 0 AND 4294967296),
    started_at INTEGER NOT NULL CHECK (started_at >= 0),
    ended_at   INTEGER CHECK (ended_at >= started_at),
    reach      INTEGER NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN ended_at IS NULL                                THEN 0
            WHEN ended_at - started_at <= 3600000000000          THEN 3600000000000
            WHEN ended_at - started_at <= 28800000000000         THEN 28800000000000
            WHEN ended_at - started_at <= 230400000000000        THEN 230400000000000
            WHEN ended_at - started_at <= 1843200000000000       THEN 1843200000000000
            WHEN ended_at - started_at <= 14745600000000000      THEN 14745600000000000
            WHEN ended_at - started_at <= 117964800000000000     THEN 117964800000000000
            ELSE 9223372036854775807
        END) STORED
) STRICT;
CREATE UNIQUE INDEX scale_event_open ON scale_event (sandbox) WHERE ended_at IS NULL;
CREATE INDEX scale_event_org ON scale_event (org, reach, started_at, ended_at, memory_mib, cpu_millis);
CREATE INDEX scale_event_time ON scale_event (reach, started_at);
CREATE INDEX scale_event_sandbox ON scale_event (sandbox, started_at);

CREATE TABLE usage_sample (
    id         TEXT PRIMARY KEY NOT NULL,
    sandbox    TEXT NOT NULL,
    epoch      BLOB CHECK (length(epoch) = 16),
    org        TEXT NOT NULL,
    memory_mib INTEGER NOT NULL CHECK (memory_mib BETWEEN 0 AND 4294967296),
    cpu_millis INTEGER NOT NULL CHECK (cpu_millis BETWEEN 0 AND 4294967296),
    started_at INTEGER NOT NULL CHECK (started_at >= 0),
    ended_at   INTEGER NOT NULL CHECK (ended_at >= started_at),
    reach      INTEGER NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN ended_at - started_at <= 3600000000000          THEN 3600000000000
            WHEN ended_at - started_at <= 28800000000000         THEN 28800000000000
            WHEN ended_at - started_at <= 230400000000000        THEN 230400000000000
            WHEN ended_at - started_at <= 1843200000000000       THEN 1843200000000000
            WHEN ended_at - started_at <= 14745600000000000      THEN 14745600000000000
            WHEN ended_at - started_at <= 117964800000000000     THEN 117964800000000000
            ELSE 9223372036854775807
        END) STORED
) STRICT;
CREATE INDEX usage_sample_org ON usage_sample (org, reach, started_at, ended_at, memory_mib, cpu_millis);
CREATE INDEX usage_sample_time ON usage_sample (reach, started_at);
CREATE INDEX usage_sample_sandbox ON usage_sample (sandbox, started_at);

-- What the host found, for whoever asks why two books differ.
CREATE TABLE verdict (
    id      TEXT PRIMARY KEY NOT NULL,
    sandbox TEXT NOT NULL,
    at      INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE INDEX verdict_sandbox ON verdict (sandbox, at);
CREATE INDEX verdict_at ON verdict (at);

-- What is left of pruned rows. `book` is 0 for scale_event and 1 for usage_sample, `hour` counts from 1970.
CREATE TABLE hour_total (
    book       INTEGER NOT NULL CHECK (book IN (0, 1)),
    org        TEXT NOT NULL,
    hour       INTEGER NOT NULL,
    sandbox    TEXT NOT NULL,
    memory_mib INTEGER NOT NULL,
    cpu_millis INTEGER NOT NULL,
    active_ns  INTEGER NOT NULL,
    PRIMARY KEY (book, org, hour, sandbox, memory_mib, cpu_millis)
) STRICT, WITHOUT ROWID;
CREATE INDEX hour_total_hour ON hour_total (book, hour);

-- One row: nothing that began before this instant is taken any more.
CREATE TABLE pruned (
    one    INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    before INTEGER NOT NULL
) STRICT;
INSERT INTO pruned (one, before) VALUES (1, 0);
