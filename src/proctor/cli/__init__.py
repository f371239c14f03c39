"""The installed command `proctor`."""
