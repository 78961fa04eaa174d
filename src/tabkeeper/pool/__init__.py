"""Who gets which session: the plan, the board, the pool and its leases."""
