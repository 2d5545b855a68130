//! All integration tests, in one binary: the program against the tests' own registry.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]
// The registry is shared with the example program, and each of them uses a part of it.
#![allow(dead_code)]

// End-to-end tests for every static build.
mod end_to_end;
// Images of all shapes from a well-behaved registry.
mod happy;
// Which module may import which.
mod layers;
// The tests' registry, and helpers to run the program.
mod registry;
mod util;
// Flags, messages, exit statuses, progress.
mod cli;
// Queries: output as text and as JSON, and their requests.
mod queries;
// Completions in real shells, and the manual page.
mod shells;
// Links and names in the READMEs.
mod readmes;
// The progress bar on terminals of all kinds.
mod terminal;
// Messages, and what must never be in them.
mod messages;
// Good and bad documents.
mod manifests;
// Partly bad input.
mod parts;
// Mirrors.
mod mirrors;
// Disk and directory failures.
mod output;
// File, stream and directory: the same content.
mod outputs;
// Archives that are already what is requested.
mod unchanged;
// Several images, and other names in the archive.
mod several;
// Images from files, and locks.
mod lists;
// Hosts and users named one by one, and what is typed in other tools.
mod named;
// Planted files and links.
mod planted;
// Signals, fsync and default names.
mod customs;
// Outputs that are pipes, devices or links.
mod streams;
// Files that change while they are read.
mod changes;
// Resuming after any end.
mod resume;
// Challenges, tokens, credentials.
mod auth;
// Credential sources.
mod credentials;
// Redirects, and who gets credentials.
mod redirects;
// TLS trust.
mod tls;
// Connection faults.
mod transfer;
// Responses changed by proxies.
mod proxied;
// Memory limits.
mod memory;
// Trickling servers.
mod waits;
// How long is waited for whom, and what is said meanwhile.
mod waiting;
// Hostile servers.
mod hostile;
// Names, addresses, proxies, next pages, secrets.
mod host;
// The library, used by another program.
mod library;
// The order of credential sources, and the forms of entries.
mod sources;
// Signers, for the tests.
mod signing;
// Signed images, genuine and forged.
mod signatures;
// Verification of existing archives: intact, damaged, strange, hostile.
mod verify;
// Tars of all dialects, compared with other readers.
mod dialects;
// Archives as people have them.
mod archives;
// The final files of images.
mod rootfs;
// Archives without what the target has.
mod thin;
