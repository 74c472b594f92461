"""Values to bytes and back, and what an answer's status means. Pure: no I/O, no clock."""
