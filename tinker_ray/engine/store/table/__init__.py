"""The tables of the ledger, one module each: rows in and out, nothing decided."""
