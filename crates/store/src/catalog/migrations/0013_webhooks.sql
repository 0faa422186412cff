-- Where an organization wants to be told of events.
CREATE TABLE webhooks (
    webhook_id           TEXT PRIMARY KEY,
    organization_id      TEXT NOT NULL REFERENCES organizations (organization_id),
    name                 TEXT NOT NULL,
    -- What may be shown: `event_types`, `resource_types` and `channels`.
    body                 TEXT NOT NULL,
    -- Headers and signing secrets of the channels. NULL: there are none.
    sealed               BLOB,
    is_active            INTEGER NOT NULL,
    created_by           TEXT NOT NULL,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    -- What became of events, all channels together.
    delivered            INTEGER NOT NULL DEFAULT 0,
    failures             INTEGER NOT NULL DEFAULT 0,
    consecutive_failures INTEGER NOT NULL DEFAULT 0,
    dropped              INTEGER NOT NULL DEFAULT 0,
    last_delivered_at    TEXT,
    last_failed_at       TEXT,
    last_error           TEXT,
    UNIQUE (organization_id, name)
);

-- Which channels of active webhooks an event of a type goes to.
CREATE TABLE webhook_routes (
    organization_id TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    webhook_id      TEXT NOT NULL REFERENCES webhooks (webhook_id) ON DELETE CASCADE,
    -- Its place among the webhook's channels, from 0.
    channel         INTEGER NOT NULL,
    -- A JSON array of the only types of resources that are meant. NULL: all.
    resource_types  TEXT
);
CREATE UNIQUE INDEX webhook_routes_of_event ON webhook_routes (organization_id, event_type, webhook_id, channel);
CREATE INDEX webhook_routes_of_webhook ON webhook_routes (webhook_id, channel);

-- The outbox: events that somebody wants and not everybody has, each written with the change that it tells of.
CREATE TABLE webhook_events (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    namespace_id    TEXT,
    event_type      TEXT NOT NULL,
    resource_type   TEXT NOT NULL,
    payload         TEXT NOT NULL,
    created_at      TEXT NOT NULL
);

-- To whom each of them is still to go.
CREATE TABLE webhook_deliveries (
    webhook_id TEXT NOT NULL REFERENCES webhooks (webhook_id) ON DELETE CASCADE,
    channel    INTEGER NOT NULL,
    event_seq  INTEGER NOT NULL REFERENCES webhook_events (seq),
    -- How often it was tried.
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Not before this time, in microseconds since the Unix epoch.
    due_at     INTEGER NOT NULL DEFAULT 0,
    -- Given up after too many tries.
    is_dead    INTEGER NOT NULL DEFAULT 0,
    -- Why the last try failed.
    error      TEXT
);
CREATE UNIQUE INDEX webhook_deliveries_in_order ON webhook_deliveries (webhook_id, is_dead, channel, event_seq);
CREATE INDEX webhook_deliveries_of_event ON webhook_deliveries (event_seq);
