"""Request sequences; each module lists its own in SCENARIOS."""
