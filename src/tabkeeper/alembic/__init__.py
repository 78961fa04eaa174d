"""Migrations of the ledger's schema; they travel inside the package."""
