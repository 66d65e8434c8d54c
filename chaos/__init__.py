"""The crash harness: a whole installation that is killed, frozen, cut and filled, and a judge of what it counted."""
