"""The Determined server's tables. Append-only: a change is a new entry of `MIGRATIONS`."""

MIGRATIONS = (
    """
CREATE TABLE ended_session ( -- tokens that were logged out
  token TEXT PRIMARY KEY,
  expires REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE workspace (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  archived INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE project (
  id INTEGER PRIMARY KEY,
  workspace INTEGER NOT NULL REFERENCES workspace(id),
  name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  archived INTEGER NOT NULL DEFAULT 0,
  UNIQUE (workspace, name)
) STRICT;
INSERT INTO workspace (id, name) VALUES (1, 'Uncategorized');
INSERT INTO project (id, workspace, name) VALUES (1, 1, 'Uncategorized');
CREATE TABLE template (
  name TEXT PRIMARY KEY,
  config TEXT NOT NULL,
  workspace INTEGER NOT NULL REFERENCES workspace(id)
) STRICT;
CREATE TABLE experiment (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project INTEGER NOT NULL REFERENCES project(id),
  name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  labels TEXT NOT NULL DEFAULT '[]',
  notes TEXT NOT NULL DEFAULT '',
  remarks TEXT NOT NULL DEFAULT '[]',
  state TEXT NOT NULL,
  config TEXT NOT NULL,
  original TEXT NOT NULL,
  context BLOB NOT NULL,
  job_id TEXT NOT NULL,
  parent INTEGER,
  archived INTEGER NOT NULL DEFAULT 0,
  progress REAL NOT NULL DEFAULT 0,
  search TEXT NOT NULL DEFAULT '', -- the searcher's state
  started REAL NOT NULL,
  ended REAL
) STRICT;
CREATE TABLE trial (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  experiment INTEGER NOT NULL REFERENCES experiment(id) ON DELETE CASCADE,
  number INTEGER NOT NULL, -- of the experiment's trials, from 0
  state TEXT NOT NULL,
  hparams TEXT NOT NULL,
  seed INTEGER NOT NULL,
  task TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL DEFAULT 0,
  ended_run INTEGER NOT NULL DEFAULT 0, -- the last one whose end is on record
  restarts INTEGER NOT NULL DEFAULT 0,
  acknowledged INTEGER NOT NULL DEFAULT 0,
  early_exit TEXT NOT NULL DEFAULT '',
  stopped INTEGER NOT NULL DEFAULT 0, -- by the searcher
  preempted INTEGER NOT NULL DEFAULT 0, -- by the scheduler: its run is to save itself and end
  slots TEXT NOT NULL DEFAULT '[]', -- that its run holds
  progress REAL NOT NULL DEFAULT 0,
  warm_start TEXT,
  reason TEXT NOT NULL DEFAULT '',
  started REAL NOT NULL,
  ended REAL,
  UNIQUE (experiment, number)
) STRICT;
CREATE TABLE metric (
  trial INTEGER NOT NULL REFERENCES trial(id) ON DELETE CASCADE,
  grp TEXT NOT NULL,
  steps INTEGER NOT NULL,
  run INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  batch_metrics TEXT,
  reported REAL NOT NULL,
  PRIMARY KEY (trial, grp, steps)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint (
  uuid TEXT PRIMARY KEY,
  trial INTEGER NOT NULL REFERENCES trial(id) ON DELETE CASCADE,
  allocation TEXT NOT NULL,
  state TEXT NOT NULL,
  steps INTEGER NOT NULL,
  metadata TEXT NOT NULL,
  resources TEXT NOT NULL,
  reported REAL NOT NULL,
  swept INTEGER NOT NULL DEFAULT 0 -- its files are gone as well
) STRICT, WITHOUT ROWID;
CREATE INDEX checkpoint_of ON checkpoint (trial);
CREATE INDEX checkpoint_unswept ON checkpoint (uuid) WHERE state = 'STATE_DELETED' AND swept = 0;
CREATE TABLE model (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  workspace INTEGER NOT NULL REFERENCES workspace(id),
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL DEFAULT '',
  notes TEXT NOT NULL DEFAULT '',
  labels TEXT NOT NULL DEFAULT '[]',
  metadata TEXT NOT NULL DEFAULT '{}',
  archived INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL,
  updated REAL NOT NULL
) STRICT;
CREATE TABLE version (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  model INTEGER NOT NULL REFERENCES model(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  checkpoint TEXT NOT NULL REFERENCES checkpoint(uuid),
  name TEXT NOT NULL DEFAULT '',
  comment TEXT NOT NULL DEFAULT '',
  notes TEXT NOT NULL DEFAULT '',
  labels TEXT NOT NULL DEFAULT '[]',
  metadata TEXT NOT NULL DEFAULT '{}',
  created REAL NOT NULL,
  updated REAL NOT NULL,
  UNIQUE (model, number)
) STRICT;
""",
)
