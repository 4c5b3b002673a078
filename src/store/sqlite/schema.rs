//! The tables, and how a database of an older form becomes one of this form.
//!
//! `PRAGMA user_version` counts the steps that a database has behind it. A step is never changed once it was shipped: what
//! is to be different is a further step.

use super::StoreError;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;

/// Marks a database as ours (`PRAGMA application_id`): "tabn".
pub(super) const APPLICATION_ID: i32 = 0x7461_626e;

/// How a database came to its present form, step by step.
pub(super) const STEPS: &[&str] = &[FIRST, SECOND, THIRD, FOURTH];

/// Jobs are small rows; what may be long (bodies, attempts, events) lies in tables of its own. The partial indexes are small
/// however many jobs are over, and hold exactly what is asked for all the time. Lists of a tenant, a service or an array
/// are merged from its states, each of them in the order of `seq`: one index serves the filtered list and the whole one.
const FIRST: &str = "
CREATE TABLE arrays (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    service TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    ended INTEGER,
    tags TEXT NOT NULL,
    webhook TEXT,
    endings INTEGER NOT NULL,
    idempotency_key TEXT,
    fingerprint BLOB
) WITHOUT ROWID;
CREATE UNIQUE INDEX arrays_key ON arrays (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    client_id TEXT,
    parent TEXT REFERENCES arrays (id),
    place INTEGER,
    service TEXT NOT NULL,
    tenant TEXT NOT NULL,
    class TEXT NOT NULL,
    size REAL,
    slots INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    vram_mib INTEGER NOT NULL,
    labels TEXT NOT NULL,
    affinity INTEGER,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    canceling INTEGER NOT NULL,
    method TEXT NOT NULL,
    uri TEXT NOT NULL,
    body_length INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    start_by INTEGER,
    timeout_ms INTEGER,
    not_before INTEGER,
    keep_ms INTEGER NOT NULL,
    keep_dead_ms INTEGER NOT NULL,
    keep_until INTEGER,
    tags TEXT NOT NULL,
    webhook TEXT,
    error TEXT,
    progress REAL,
    progress_text TEXT,
    failed_on TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint BLOB
);
CREATE UNIQUE INDEX jobs_client ON jobs (tenant, client_id) WHERE client_id IS NOT NULL;
CREATE UNIQUE INDEX jobs_key ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state, seq);
CREATE INDEX jobs_tenant ON jobs (tenant, state, seq);
CREATE INDEX jobs_service ON jobs (service, state, seq);
CREATE INDEX jobs_parent ON jobs (parent, state, seq) WHERE parent IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (seq) WHERE state IN ('queued', 'starting', 'running');
CREATE INDEX jobs_expiring ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL;
CREATE INDEX jobs_kept ON jobs (keep_until) WHERE keep_until IS NOT NULL;

CREATE TABLE tags (
    tag TEXT NOT NULL,
    job INTEGER NOT NULL,
    PRIMARY KEY (tag, job)
) WITHOUT ROWID;

CREATE TABLE requests (
    job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    headers BLOB NOT NULL,
    blob TEXT,
    length INTEGER NOT NULL,
    sha256 BLOB,
    bytes BLOB
);
CREATE INDEX requests_blob ON requests (blob) WHERE blob IS NOT NULL;

CREATE TABLE results (
    job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    status INTEGER NOT NULL,
    headers BLOB NOT NULL,
    blob TEXT,
    length INTEGER NOT NULL,
    sha256 BLOB,
    bytes BLOB
);
CREATE INDEX results_blob ON results (blob) WHERE blob IS NOT NULL;

CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER,
    outcome TEXT,
    error TEXT,
    submitting INTEGER NOT NULL,
    handle TEXT,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

CREATE TABLE events (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, version)
) WITHOUT ROWID;

CREATE TABLE letters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL,
    tenant TEXT NOT NULL,
    url TEXT NOT NULL,
    payload TEXT NOT NULL,
    written INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    due INTEGER,
    delivered INTEGER,
    last TEXT
);
CREATE INDEX letters_about ON letters (about, seq);
CREATE INDEX letters_due ON letters (due, seq) WHERE due IS NOT NULL;
CREATE INDEX letters_waiting ON letters (about, seq) WHERE due IS NOT NULL;
CREATE INDEX letters_written ON letters (written) WHERE due IS NOT NULL;
CREATE INDEX letters_url ON letters (url) WHERE due IS NOT NULL;

CREATE TABLE plugin_values (
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, key)
) WITHOUT ROWID;

CREATE TABLE learned_times (
    service TEXT NOT NULL,
    class TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (service, class, endpoint)
) WITHOUT ROWID;
";

/// What decides where a job runs has grown.
const SECOND: &str = "
ALTER TABLE jobs ADD COLUMN model TEXT;
ALTER TABLE jobs ADD COLUMN interactive INTEGER NOT NULL DEFAULT 0;
";

/// A kind may call a piece of work by a name of its own.
const THIRD: &str = "
ALTER TABLE jobs ADD COLUMN work TEXT;
CREATE INDEX jobs_named ON jobs (client_id) WHERE client_id IS NOT NULL;
";

/// What answers used is counted.
const FOURTH: &str = "
CREATE TABLE usage (
    day TEXT NOT NULL,
    service TEXT NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    node TEXT NOT NULL,
    requests INTEGER NOT NULL,
    read INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (day, service, tenant, model, node)
) WITHOUT ROWID;
";

/// Takes the steps that a database has not behind it: all of them, or none.
///
/// Errors: it is not ours, or newer than this tabane; nothing is changed then.
pub(super) fn migrate(
    database: &mut Connection,
    path: &Path,
    steps: &[&str],
) -> Result<(), StoreError> {
    let whole = Transaction::new(database, TransactionBehavior::Immediate)?;
    let found: i64 = whole.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let behind = usize::try_from(found)
        .ok()
        .filter(|behind| *behind <= steps.len())
        .ok_or_else(|| StoreError::Newer {
            path: path.to_owned(),
            found: u32::try_from(found).unwrap_or(u32::MAX),
            known: steps.len() as u32,
        })?;
    if behind == steps.len() {
        return Ok(());
    }
    for step in &steps[behind..] {
        whole.execute_batch(step)?;
    }
    whole.pragma_update(None, "application_id", APPLICATION_ID)?;
    whole.pragma_update(None, "user_version", steps.len() as i64)?;
    Ok(whole.commit()?)
}
