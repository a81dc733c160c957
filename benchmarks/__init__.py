"""Measurements, kept apart from tests: what a figure is depends on data and machine."""
