"""Frozen values that every layer may know. No I/O here."""
