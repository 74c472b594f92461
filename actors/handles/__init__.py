"""What callers hold of the actors: every method written out, every call ends, our errors only."""
