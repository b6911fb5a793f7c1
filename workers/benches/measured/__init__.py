"""Measurements: lines of JSON, and what is written of them."""
