"""What is on disk: the ledger, the journal of training operations, checkpoints and snapshots."""
