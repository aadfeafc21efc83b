"""Seeded faults: what they break, and how a broken copy is made."""
