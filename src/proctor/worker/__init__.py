"""The worker: runs attempts."""
