"""Measurements with many jobs, run by hand."""
