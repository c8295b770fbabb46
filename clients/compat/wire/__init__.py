"""Kafka's wire format for test programs: any API, any version, right or wrong. Standard library only."""
