"""The tables of the ledger, as the steps that made them.

A new file goes through every step, an older one through those that it lacks, in one transaction: so
both end with the same tables. A step that was released is never changed. Knows nothing of rows.
"""

from __future__ import annotations

_STEP_1 = """
CREATE TABLE sessions (session_id TEXT PRIMARY KEY, created_at REAL, tags TEXT, user_metadata TEXT,
    sdk_version TEXT, project_id TEXT, display_name TEXT, last_seen_at REAL,
    finished_at REAL, finish TEXT);
CREATE TABLE models (model_id TEXT PRIMARY KEY, session_id TEXT, base_model TEXT, lora TEXT,
    user_metadata TEXT, state TEXT, created_at REAL, last_request_at REAL);
CREATE INDEX models_of_session ON models (session_id);
CREATE TABLE samplers (sampler_id TEXT PRIMARY KEY, session_id TEXT, base_model TEXT,
    model_path TEXT, directory TEXT, ephemeral INTEGER, created_at REAL,
    num_joined INTEGER);
CREATE INDEX samplers_of_session ON samplers (session_id);
CREATE INDEX samplers_of_directory ON samplers (directory);
CREATE TABLE checkpoints (tinker_path TEXT PRIMARY KEY, run_id TEXT, checkpoint_id TEXT,
    checkpoint_type TEXT, directory TEXT, size_bytes INTEGER, created_at REAL, user_metadata TEXT,
    expires_at REAL);
CREATE INDEX checkpoints_of_run ON checkpoints (run_id);
CREATE TABLE promises (request_id TEXT PRIMARY KEY, kind TEXT, model_id TEXT, seq_id INTEGER,
    form TEXT, body BLOB, size_bytes INTEGER DEFAULT 0, pruned INTEGER DEFAULT 0);
CREATE UNIQUE INDEX promises_of_model ON promises (model_id, seq_id) WHERE seq_id IS NOT NULL;
"""

_STEP_2 = """
ALTER TABLE sessions ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
CREATE INDEX sessions_of_owner ON sessions (owner);
ALTER TABLE models ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
ALTER TABLE models ADD COLUMN project_id TEXT;
ALTER TABLE models ADD COLUMN optimizer TEXT NOT NULL DEFAULT '{"type":"adamw"}';
CREATE INDEX models_of_owner ON models (owner);
ALTER TABLE samplers ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
ALTER TABLE samplers ADD COLUMN kind TEXT NOT NULL DEFAULT 'snapshot';
ALTER TABLE samplers ADD COLUMN run_id TEXT;
ALTER TABLE samplers ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
ALTER TABLE checkpoints ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
ALTER TABLE checkpoints ADD COLUMN public INTEGER NOT NULL DEFAULT 0;
CREATE INDEX checkpoints_of_owner ON checkpoints (owner);
CREATE INDEX checkpoints_of_directory ON checkpoints (directory);
ALTER TABLE promises ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
CREATE TABLE inflight (model_id TEXT PRIMARY KEY, directory TEXT);
CREATE TABLE losses (loss_id TEXT PRIMARY KEY, session_id TEXT, name TEXT, inputs TEXT, graph TEXT,
    created_at REAL);
CREATE TABLE keys (key_id INTEGER PRIMARY KEY, key_hash TEXT UNIQUE, owner TEXT, first_seen_at REAL,
    revoked_at REAL);
CREATE TABLE audit (entry_id INTEGER PRIMARY KEY, at REAL, owner TEXT, resource TEXT, event TEXT,
    details TEXT);
CREATE INDEX audit_of_owner ON audit (owner, at);
CREATE TABLE usage (bucket INTEGER, owner TEXT, session_id TEXT, base_model TEXT, type TEXT,
    quantity INTEGER, PRIMARY KEY (bucket, owner, session_id, base_model, type)) WITHOUT ROWID;
CREATE TABLE storage (storage_id INTEGER PRIMARY KEY, tinker_path TEXT, owner TEXT, run_id TEXT,
    size_bytes INTEGER, since REAL, until REAL);
CREATE INDEX storage_of_owner ON storage (owner, since);
CREATE INDEX storage_of_path ON storage (tinker_path) WHERE until IS NULL;
INSERT INTO storage (tinker_path, owner, run_id, size_bytes, since)
    SELECT tinker_path, 'local', run_id, size_bytes, created_at FROM checkpoints;
CREATE TABLE activity (activity_id INTEGER PRIMARY KEY, session_id TEXT, track TEXT, kind TEXT,
    request_id TEXT, accepted_at REAL, started_at REAL, ended_at REAL, ok INTEGER, tokens INTEGER);
CREATE INDEX activity_of_session ON activity (session_id);
CREATE TABLE pending_samples (request_id TEXT PRIMARY KEY, sampler_id TEXT, clone INTEGER);
CREATE INDEX pending_samples_of_sampler ON pending_samples (sampler_id, clone);
CREATE TABLE answers (owner TEXT, idempotency_key TEXT, body TEXT, answered_at REAL,
    PRIMARY KEY (owner, idempotency_key));
"""

STEPS = (_STEP_1, _STEP_2)
"""Step n turns version n - 1 of the tables into version n."""
