"""Every metric, each with a sentence. No label's values grow with organisations, keys, flows or users.

The event loop alone counts in those of service/counts.py.
"""

from prometheus_client import Counter, Gauge, Histogram

from service.counts import LoopCounter, LoopHistogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# The edge. `route` is the route's pattern, `status` the three digits, `reason` one of ingest/answers.py and so few.
requests = LoopCounter(
    "zenstep_http_requests_total", "Requests answered, errors included.", ["route", "method", "status"]
)
http_seconds = LoopHistogram(
    "zenstep_http_request_seconds",
    "Seconds from a request's headers to its answer.",
    ["route"],
    buckets=_FAST,
)
events_received = LoopCounter("zenstep_events_received_total", "Events in the bodies that could be read.")
events_accepted = LoopCounter("zenstep_events_accepted_total", "Events answered with a 2xx, so durable in the log.")
events_withheld = Counter(
    "zenstep_events_withheld_total",
    "Events and small writes not taken because their browser asked for privacy, by the signal that it asked with.",
    ["signal"],
)
events_bot = LoopCounter(
    "zenstep_events_bot_total", "Accepted events of known bots: marked, and counted like any other."
)
refusals = Counter(
    "zenstep_refusals_total", "Requests answered with an error, or given up by their client, by reason.", ["reason"]
)
malformed_requests = Counter(
    "zenstep_malformed_requests_total", "Requests that are no HTTP. They are not logged: anybody could fill the log so."
)
refused_lost = Counter(
    "zenstep_refused_lost_total", "Refused requests that could not be noted in the topic of the refused.", ["reason"]
)
heartbeats_accepted = Counter("zenstep_heartbeats_accepted_total", "Heartbeats answered with a 2xx.")
small_accepted = Counter(
    "zenstep_small_writes_accepted_total", "Small writes but heartbeats answered with a 2xx, by kind.", ["kind"]
)
records_acknowledged = LoopCounter(
    "zenstep_records_acknowledged_total", "Records that the log acknowledged.", ["topic"]
)
records_failed = Counter("zenstep_records_failed_total", "Records that the log did not acknowledge.", ["topic"])
produce_seconds = LoopHistogram(
    "zenstep_produce_seconds",
    "Seconds from handing a record to the log to its acknowledgement.",
    buckets=_FAST,
)
events_spooled = Counter("zenstep_events_spooled_total", "Events put onto the edge's disk since the log was away.")
events_flushed = Counter("zenstep_events_flushed_total", "Spooled events that the log has acknowledged.")
spool_refused = Counter("zenstep_spool_refused_total", "Requests that the spool could not take, by reason.", ["reason"])
spool_set_aside = Counter(
    "zenstep_spool_set_aside_total", "Spooled lines too large for their topic, kept in the spool's folder."
)
spool_append_seconds = Histogram(
    "zenstep_spool_append_seconds", "Seconds of putting one group of lines onto the disk.", buckets=_FAST
)
spool_events = Gauge("zenstep_spool_events", "Events in the spool.")
spool_bytes = Gauge("zenstep_spool_bytes", "Bytes of the spool on the disk.")
spool_oldest_seconds = Gauge("zenstep_spool_oldest_seconds", "Age of the oldest event in the spool, else 0.")
spool_damaged_bytes = Gauge("zenstep_spool_damaged_bytes", "Bytes of the spool that could not be read at the start.")
key_lookups = LoopCounter("zenstep_key_lookups_total", "Look-ups of snippet keys, by what answered.", ["result"])
flow_lookups = LoopCounter(
    "zenstep_flow_lookups_total", "Look-ups of an organisation's flows, by what answered.", ["result"]
)
tally_errors = Counter(
    "zenstep_tally_errors_total", "Writes of the edge's sums for the audit that the store did not take; they wait."
)

# The worker. Partitions are a few per topic, by the operator's own setting.
events_consumed = Counter("zenstep_events_consumed_total", "Events taken from the log and accounted for.", ["topic"])
events_counted = Counter("zenstep_events_counted_total", "Events new, and so in the numbers.", ["topic"])
events_duplicate = Counter("zenstep_events_duplicate_total", "Events already counted before.", ["topic"])
events_rejected = Counter("zenstep_events_rejected_total", "Events set aside, by reason.", ["topic", "reason"])
events_late = Counter("zenstep_events_late_total", "Events counted into an hour more than an hour before receipt.")
events_clamped = Counter("zenstep_events_clamped_total", "Events from a client's future, counted at their receipt.")
batch_seconds = Histogram("zenstep_batch_seconds", "Seconds of one batch, from decoding to commit.", buckets=_FAST)
batch_events = Histogram(
    "zenstep_batch_events", "Events of one batch.", buckets=(1, 10, 50, 100, 500, 1000, 5000, 10000, 50000)
)
lag_records = Gauge("zenstep_lag_records", "Records of a partition not yet counted.", ["topic", "partition"])
lag_seconds = Gauge(
    "zenstep_lag_seconds",
    "Age of the newest counted record where records wait, else 0.",
    ["topic", "partition"],
)
partitions_assigned = Gauge("zenstep_partitions_assigned", "Partitions this worker holds.")
days_to_close = Gauge("zenstep_days_to_close", "Days of flows that are over and not yet summed up.")
days_closed = Counter("zenstep_days_closed_total", "Days of flows summed up after their end.")
day_errors = Counter("zenstep_day_errors_total", "Days of flows that could not be summed up; they are tried again.")
environment_errors = Counter(
    "zenstep_environment_errors_total", "Batches put off because the log or the store was away.", ["part"]
)
zombie_batches = Counter("zenstep_zombie_batches_total", "Batches not written because the offset had moved already.")

records_redelivered = Counter(
    "zenstep_records_redelivered_total", "Records that the log gave again though they were counted; passed over."
)
worker_stopped = Gauge(
    "zenstep_worker_stopped", "Set to 1 where the worker has stopped until somebody looks, by reason.", ["reason"]
)

# The edge and the reader.
limits_away = Gauge(
    "zenstep_limits_away",
    "Parts of this process that count requests alone, since the store that all share for rate limits is away; else 0.",
)

# The reader.
token_checks = Counter("zenstep_token_checks_total", "Session tokens checked, by result.", ["result"])
jwks_fetches = Counter("zenstep_jwks_fetches_total", "Fetches of the JWKS document, by result.", ["result"])
