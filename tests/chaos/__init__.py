"""Faults against a running installation of real processes; after each, every accepted job has exactly one outcome."""
