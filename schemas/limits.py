"""The rate limits: requests a minute of one organisation, by bucket. Documented, but `analytics` and `strangers`."""

WINDOW_SECONDS = 60
LIMITS = {
    "events": 300,
    "heartbeat": 10,
    "flows": 60,
    "fingerprint": 30,
    "health": 60,
    "status": 10,
    "analytics": 60,  # ours
}
MAX_LIMIT = 10_000_000
STRANGERS = 60  # failed authentications a minute of one client address (ours)
