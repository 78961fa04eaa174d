"""Replays arrival traces through the real planner and keep code, against a meter of its own and the optimum."""
