"""The Pachyderm server's tables. Append-only: a change is a new entry of `MIGRATIONS`."""

MIGRATIONS = (
    """
CREATE TABLE project (
  name TEXT PRIMARY KEY,
  description TEXT NOT NULL,
  created REAL NOT NULL
) STRICT;
CREATE TABLE repo (
  pk INTEGER PRIMARY KEY,
  project TEXT NOT NULL REFERENCES project(name),
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  description TEXT NOT NULL,
  created REAL NOT NULL,
  UNIQUE (project, name, type)
) STRICT;
-- A lineage is a straight line of commits, numbered by seq. Forking starts a new one on top of `base` as it was at base_seq.
CREATE TABLE lineage (
  pk INTEGER PRIMARY KEY,
  repo INTEGER REFERENCES repo(pk) ON DELETE CASCADE, -- NULL for a file set
  base INTEGER REFERENCES lineage(pk),
  base_seq INTEGER
) STRICT;
CREATE INDEX lineage_base ON lineage (base);
CREATE TABLE commits (
  pk INTEGER PRIMARY KEY,
  repo INTEGER NOT NULL REFERENCES repo(pk) ON DELETE CASCADE,
  id TEXT NOT NULL,
  branch TEXT NOT NULL,
  parent INTEGER REFERENCES commits(pk),
  lineage INTEGER NOT NULL REFERENCES lineage(pk),
  seq INTEGER NOT NULL,
  origin TEXT NOT NULL,
  description TEXT NOT NULL,
  started REAL NOT NULL,
  finishing REAL,
  finished REAL,
  error TEXT NOT NULL DEFAULT '',
  size INTEGER NOT NULL DEFAULT 0,
  hash BLOB,
  UNIQUE (repo, id),
  UNIQUE (lineage, seq)
) STRICT;
CREATE INDEX commits_by_id ON commits (id);
CREATE INDEX commits_by_parent ON commits (parent);
CREATE TABLE branch (
  pk INTEGER PRIMARY KEY,
  repo INTEGER NOT NULL REFERENCES repo(pk) ON DELETE CASCADE,
  name TEXT NOT NULL,
  head INTEGER REFERENCES commits(pk),
  created REAL NOT NULL,
  trigger_spec TEXT, -- JSON; the branch then follows another one of its repo
  UNIQUE (repo, name)
) STRICT;
CREATE TABLE branch_provenance (
  branch INTEGER NOT NULL REFERENCES branch(pk) ON DELETE CASCADE,
  upstream INTEGER NOT NULL REFERENCES branch(pk),
  PRIMARY KEY (branch, upstream)
) STRICT, WITHOUT ROWID;
CREATE INDEX branch_subvenance ON branch_provenance (upstream);
CREATE TABLE commit_provenance (
  commit_pk INTEGER NOT NULL REFERENCES commits(pk) ON DELETE CASCADE,
  upstream INTEGER NOT NULL REFERENCES commits(pk),
  PRIMARY KEY (commit_pk, upstream)
) STRICT, WITHOUT ROWID;
CREATE INDEX commit_subvenance ON commit_provenance (upstream);
-- One row a version of a file or folder (path ends in '/'): what it was from from_seq until before to_seq.
-- kind: 1 file, 2 folder (size, files and hash are those of everything below), 0 deleted although a base lineage has it.
CREATE TABLE file (
  lineage INTEGER NOT NULL,
  path TEXT NOT NULL,
  from_seq INTEGER NOT NULL,
  to_seq INTEGER NOT NULL,
  parent TEXT NOT NULL,
  kind INTEGER NOT NULL,
  size INTEGER NOT NULL,
  files INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (lineage, path, from_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_children ON file (lineage, parent);
CREATE INDEX file_from ON file (lineage, from_seq);
CREATE INDEX file_to ON file (lineage, to_seq) WHERE to_seq < 4611686018427387904;
-- Where content lies: in a pack at an offset, or (pack 0) in a file of its own.
CREATE TABLE blob (
  hash BLOB PRIMARY KEY,
  size INTEGER NOT NULL,
  pack INTEGER NOT NULL,
  offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE pipeline (
  pk INTEGER PRIMARY KEY,
  project TEXT NOT NULL REFERENCES project(name),
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  spec TEXT NOT NULL,
  user_spec TEXT NOT NULL,
  spec_commit TEXT NOT NULL, -- ID of the commit in the spec repo that made this version
  salt TEXT NOT NULL, -- part of every datum's hash: a new one makes all datums run again
  stopped INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  created REAL NOT NULL,
  updated REAL NOT NULL,
  UNIQUE (project, name)
) STRICT;
CREATE TABLE job (
  pk INTEGER PRIMARY KEY,
  pipeline INTEGER NOT NULL REFERENCES pipeline(pk) ON DELETE CASCADE,
  id TEXT NOT NULL,
  output_commit INTEGER NOT NULL REFERENCES commits(pk) ON DELETE CASCADE,
  version INTEGER NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  restart INTEGER NOT NULL DEFAULT 0,
  data_total INTEGER NOT NULL DEFAULT 0,
  data_processed INTEGER NOT NULL DEFAULT 0,
  data_skipped INTEGER NOT NULL DEFAULT 0,
  data_failed INTEGER NOT NULL DEFAULT 0,
  data_recovered INTEGER NOT NULL DEFAULT 0,
  download_s REAL NOT NULL DEFAULT 0,
  process_s REAL NOT NULL DEFAULT 0,
  upload_s REAL NOT NULL DEFAULT 0,
  download_bytes INTEGER NOT NULL DEFAULT 0,
  upload_bytes INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL,
  started REAL,
  finished REAL,
  UNIQUE (pipeline, id)
) STRICT;
CREATE INDEX job_output ON job (output_commit);
CREATE INDEX job_id ON job (id);
CREATE INDEX job_open ON job (state) WHERE finished IS NULL;
-- What a datum wrote when it was processed; `key` is the datum's hash.
CREATE TABLE result (
  pk INTEGER PRIMARY KEY,
  pipeline INTEGER NOT NULL REFERENCES pipeline(pk) ON DELETE CASCADE,
  datum TEXT NOT NULL,
  key TEXT NOT NULL
) STRICT;
CREATE INDEX result_datum ON result (pipeline, datum, pk);
CREATE TABLE result_file (
  result INTEGER NOT NULL REFERENCES result(pk) ON DELETE CASCADE,
  path TEXT NOT NULL,
  hash BLOB NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (result, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE datum (
  job INTEGER NOT NULL REFERENCES job(pk) ON DELETE CASCADE,
  id TEXT NOT NULL,
  position INTEGER NOT NULL,
  state TEXT NOT NULL,
  inputs TEXT NOT NULL,
  result INTEGER REFERENCES result(pk) ON DELETE SET NULL,
  download_s REAL NOT NULL DEFAULT 0,
  process_s REAL NOT NULL DEFAULT 0,
  upload_s REAL NOT NULL DEFAULT 0,
  download_bytes INTEGER NOT NULL DEFAULT 0,
  upload_bytes INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (job, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX datum_result ON datum (result);
-- Files without a commit, for as long as they are renewed; read by their lineage.
CREATE TABLE file_set (
  id TEXT PRIMARY KEY,
  lineage INTEGER NOT NULL REFERENCES lineage(pk),
  expires REAL NOT NULL
) STRICT;
CREATE TABLE file_set_change (
  file_set TEXT NOT NULL REFERENCES file_set(id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL, -- Put or Delete
  path TEXT NOT NULL,
  hash BLOB,
  size INTEGER NOT NULL,
  append INTEGER NOT NULL,
  PRIMARY KEY (file_set, position)
) STRICT, WITHOUT ROWID;
-- Parts of an S3 multipart upload.
CREATE TABLE upload (
  id TEXT PRIMARY KEY,
  bucket TEXT NOT NULL,
  key TEXT NOT NULL,
  started REAL NOT NULL
) STRICT;
CREATE TABLE upload_part (
  upload TEXT NOT NULL REFERENCES upload(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  hash BLOB NOT NULL,
  size INTEGER NOT NULL,
  md5 TEXT NOT NULL,
  stored REAL NOT NULL,
  PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE secret (
  name TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  data TEXT NOT NULL,
  created REAL NOT NULL
) STRICT;
""",
)
