-- What the peers count into; a worker's benchmark makes it before it starts one.
CREATE TABLE peer_seen (organisation uuid, event_id uuid, PRIMARY KEY (organisation, event_id));
CREATE TABLE peer_counts (
    organisation uuid, flow uuid, step uuid, hour bigint,
    views bigint NOT NULL, completions bigint NOT NULL, skips bigint NOT NULL, dismissals bigint NOT NULL,
    PRIMARY KEY (organisation, flow, step, hour)
);
