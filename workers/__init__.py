"""The workers: consume, scope, de-duplicate, fold, and write it all in one transaction."""
