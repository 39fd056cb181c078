"""Measurements: each compares both sides in one process run."""
