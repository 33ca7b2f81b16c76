"""Sensors: wait for lists that somebody else submitted."""
