//! All tests from outside, in one binary: the program against a registry of the tests' own.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]
// The registry is shared with the example program, and each of them uses a part of it.
#![allow(dead_code)]

// What every static build is put through, on each target.
mod end_to_end;
// What a user's day looks like: images of all shapes, and nothing goes wrong.
mod happy;
// Which module may import which.
mod layers;
// The registry, and how the program is run.
mod registry;
mod util;
// Flags, messages, exit statuses, progress.
mod cli;
// Questions, their answers as text and as JSON, and what they cost.
mod queries;
// Completions in real shells, the manual page, and what the README says of the command line.
mod shells;
// The bar and its absence, on terminals of all kinds.
mod terminal;
// What is said, and what never is.
mod messages;
// Documents good and bad.
mod manifests;
// One bad part does not spoil the whole.
mod parts;
// Mirrors: asked first, trusted with nothing.
mod mirrors;
// Disks and directories.
mod output;
// File, stream and directory: the same in every way.
mod outputs;
// What others may have put in the way.
mod planted;
// Signals, disks and names as people are used to them.
mod customs;
// Pipes, devices, links.
mod streams;
// Files that change while they are read.
mod changes;
// Ended at any moment, and run again.
mod resume;
// Challenges, tokens, credentials.
mod auth;
// Where credentials come from.
mod credentials;
// Redirects, and who gets what.
mod redirects;
// Whom is trusted.
mod tls;
// What connections do.
mod transfer;
// What proxies make of answers.
mod proxied;
// The largest of everything.
mod memory;
// Bytes that come, but bring nothing.
mod waits;
// How long is waited for whom, and what is said meanwhile.
mod waiting;
// Servers that mean harm.
mod hostile;
// Names, addresses, proxies, next pages, secrets.
mod host;
// The library, from another program.
mod library;
// Which credentials win, and what an entry may look like.
mod sources;
// Archives that are there: whole, damaged, strange, hostile.
mod verify;
// Tars of all dialects, as other programs read them.
mod dialects;
// Archives as people have them.
mod archives;
