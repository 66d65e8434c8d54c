"""The contracts: what a client may send, what stands in a record, and what the store's tables hold."""
