"""What can be swapped: the log (Kafka or SQLite) and the store (PostgreSQL or SQLite)."""
