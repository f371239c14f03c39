"""One Protocol and its real clients for each system outside Proctor."""
