"""`make bench`: figures of this machine, compared by hand; not tests."""
