"""Programs that print Proctor's figures beside a peer's, run on the same machine in the same minutes."""
