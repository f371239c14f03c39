"""Stand-ins for tests of Proctor and of what is built on it."""
