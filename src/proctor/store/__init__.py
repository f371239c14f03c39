"""All SQL, one file an aggregate. Functions take the transaction of the caller's unit of work."""
