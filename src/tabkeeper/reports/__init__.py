"""Reports on what the ledger knows: sums, forecasts, tables, JSON and CSV. They read, and never write."""
