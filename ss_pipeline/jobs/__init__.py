"""The job, pure: what it is, how it may change, how older documents become current. No I/O, clock or logging."""
