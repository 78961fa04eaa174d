"""Saved browser state that outlives sessions: how far it is trusted, and where it is kept, encrypted."""
