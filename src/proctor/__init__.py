"""Proctor runs test plans: one HTTP call, real browsers, every result kept."""
