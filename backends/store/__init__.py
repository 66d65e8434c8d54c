"""The store: what is known of organisations, and what has been counted. PostgreSQL, or SQLite for one machine."""
