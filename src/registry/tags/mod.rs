//! All tags of a repository, page by page, in bounded memory and without loops.

pub(super) mod link;
pub(crate) mod page;

use super::content_encoding::{self, Coding};
use super::tags::page::Page;
use super::{Ask, Repository, error};
use crate::error::{Error, Result};
use crate::net::error::Failure;
use crate::net::retry::Budget;
use crate::net::url::Url;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Limits for a list, in bytes (some registries list manifests besides the tags), and in tags.
const LIST_LIMIT: u64 = 256 << 20;
const TAGS_LIMIT: u64 = 4 << 20;
/// The most pages, and the most in a row without a new tag.
const PAGES: usize = 10_000;
const IDLE_PAGES: usize = 256;
/// How many tags are remembered at least, so that none is printed twice.
const RECENT: usize = 56 << 10;

/// The tags of a repository, in the registry's order.
///
/// A tag repeated among the next fifty thousand is left out, and so are invalid tags. The list is
/// complete if it ends without an error.
pub struct Tags<'a> {
    repository: Repository<'a>,
    what: String,
    /// The current page, or the next one to request.
    url: Option<Url>,
    /// The registry chooses the number of tags.
    unsized_pages: bool,
    page: Option<Page<'a>>,
    /// What follows the page.
    following: Result<Option<Url>>,
    /// What was read of this page, now and in an earlier attempt.
    had: Had,
    before: Had,
    budget: Budget,
    seen: Recent,
    visited: HashSet<u64>,
    read: u64,
    listed: u64,
    idle: usize,
}

/// The number of tags of a page, and their hash.
#[derive(Clone, Default)]
struct Had {
    count: u64,
    hash: DefaultHasher,
}

/// The latest tags, as hashes, which take a fraction of the memory.
#[derive(Default)]
struct Recent {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Recent {
    fn insert(&mut self, tag: &str) -> bool {
        let hash = hash(tag);
        if self.old.contains(&hash) || !self.new.insert(hash) {
            return false;
        }
        if self.new.len() == RECENT {
            self.old = std::mem::take(&mut self.new);
        }
        true
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl<'a> Repository<'a> {
    /// The tags of this repository; pages are requested when needed.
    pub fn tags(self) -> Tags<'a> {
        Tags {
            what: format!("the list of tags of {}", self.reference.name()),
            // 1000 is ECR's maximum.
            url: Some(self.url("/tags/list?n=1000")),
            unsized_pages: false,
            page: None,
            following: Ok(None),
            had: Had::default(),
            before: Had::default(),
            budget: self.client.budget(),
            seen: Recent::default(),
            visited: HashSet::new(),
            read: 0,
            listed: 0,
            idle: 0,
            repository: self,
        }
    }
}

impl fmt::Debug for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl<'a> Tags<'a> {
    /// The next tag of all pages, including repeated ones.
    fn tag(&mut self) -> Result<Option<String>> {
        loop {
            let next = match &mut self.page {
                Some(page) => page.next(),
                None => match self.open() {
                    Ok(false) => return Ok(None),
                    Ok(true) => continue,
                    Err(failure) => Err(failure),
                },
            };
            match next {
                Ok(Some(tag)) => {
                    self.had.count += 1;
                    tag.hash(&mut self.had.hash);
                    if self.had.count > self.before.count {
                        return Ok(Some(tag));
                    }
                    self.compare(false)?;
                }
                Ok(None) => {
                    self.compare(true)?;
                    self.turn()?;
                }
                Err(failure) => {
                    let failure = self.disguised().unwrap_or(failure);
                    self.wait(failure)?;
                }
            }
        }
    }

    /// The registry's error message, if it came with status 200 instead of tags.
    fn disguised(&self) -> Option<Failure> {
        let said = self.page.as_ref()?.without_list()?;
        let failure = error::disguised(self.url.as_ref()?, 200, said, false)?;
        Some(Failure::Status(Box::new(failure)))
    }

    /// A page that is read again after a broken connection must start with the same tags.
    fn compare(&self, end: bool) -> Result<()> {
        let (had, before) = (&self.had, &self.before);
        let changed = match had.count == before.count {
            true => had.hash.finish() != before.hash.finish(),
            false => end && had.count < before.count,
        };
        match changed {
            true => Err(Error::malformed(
                &*self.what,
                "changed while it was being read",
            )),
            false => Ok(()),
        }
    }

    /// Requests a page; `false` if there is none.
    fn open(&mut self) -> std::result::Result<bool, Failure> {
        let Some(url) = &self.url else {
            return Ok(false);
        };
        let ask = Ask {
            accept: &["application/json"],
            ..Ask::default()
        };
        let (response, answered) = match self.repository.follow(url, ask, true) {
            // A registry that rejects the number may still have a list.
            Err(Failure::Status(status))
                if matches!(status.status, 400 | 413 | 414 | 416 | 422)
                    && !self.unsized_pages
                    && self.visited.is_empty() =>
            {
                self.unsized_pages = true;
                self.url = Some(self.repository.url("/tags/list"));
                return Ok(true);
            }
            other => other?,
        };
        let next = link::next(response.head.fields.all("link"));
        self.following = match next {
            Some(next) => self
                .repository
                .next_page(&answered, &next, "of tags")
                .map(Some),
            None => Ok(None),
        };
        let coding = Coding::of(&response.head);
        let host = answered.origin.to_string();
        let room = LIST_LIMIT.saturating_sub(self.read);
        let reader = content_encoding::reader(response, &coding, room);
        let reader = reader.map_err(|error| content_encoding::failure(error, &host))?;
        let mut page = Page::new(reader, host, &self.what, room);
        page.encoded(coding);
        self.page = Some(page);
        self.had = Had::default();
        Ok(true)
    }

    /// Continues with the next page, if there is one that was not read before.
    fn turn(&mut self) -> Result<()> {
        if let Some(page) = self.page.take() {
            self.read += page.read;
            if page.left_out > 0 {
                let text = format!("{} entries of {} are not tags", page.left_out, self.what);
                self.repository.client.note(&text);
            }
        }
        if let Some(url) = self.url.take() {
            self.visited.insert(hash(url));
        }
        // The same for the next page.
        (self.had, self.before) = (Had::default(), Had::default());
        self.budget = self.repository.client.budget();
        let next = std::mem::replace(&mut self.following, Ok(None))?;
        // A repeated cursor is the end: what follows it was already read.
        self.url = next.filter(|next| !self.visited.contains(&hash(next)));
        if self.url.is_some() {
            self.idle += 1;
            if self.visited.len() >= PAGES || self.idle > IDLE_PAGES {
                let why = match self.visited.len() >= PAGES {
                    true => format!("does not end after {PAGES} pages; truncated"),
                    false => format!("does not end after {IDLE_PAGES} pages without a new tag"),
                };
                return Err(Error::malformed(&*self.what, why));
            }
        }
        Ok(())
    }

    /// Reads the page again, from its start.
    fn wait(&mut self, failure: Failure) -> Result<()> {
        if let Some(page) = self.page.take() {
            self.budget.progress(page.read);
            self.read += page.read;
        }
        if self.had.count > self.before.count {
            self.before = self.had.clone();
        }
        let client = self.repository.client;
        let doing = format!("requesting {}", self.what);
        client.wait(&mut self.budget, failure, &doing)
    }

    /// After a failure there is nothing to continue.
    fn end(&mut self, error: Error) -> Option<Result<String>> {
        (self.page, self.url) = (None, None);
        Some(Err(error))
    }

    /// Whether the next tag is available without waiting for the registry. Callers may buffer the
    /// tags that they have until then.
    pub fn is_at_hand(&self) -> bool {
        self.page.as_ref().is_some_and(Page::is_at_hand)
    }
}

impl Iterator for Tags<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.tag() {
                Ok(Some(tag)) if self.seen.insert(&tag) => {
                    self.idle = 0;
                    self.listed += 1;
                    if self.listed > TAGS_LIMIT {
                        let why = format!("does not end after {TAGS_LIMIT} tags; truncated");
                        return self.end(Error::malformed(&*self.what, why));
                    }
                    return Some(Ok(tag));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return self.end(error),
            }
        }
    }
}
