"""HTTP for programs: the contract's two dialects, and Proctor's own routes."""
