//! Blob downloads: a single response to a request, and a reader that resumes broken connections and
//! ends only if the bytes match the descriptor.

pub(crate) mod body;

use super::blob::body::Flow;
use super::content_encoding::Coding;
use super::{Ask, Client, Repository, error};
use crate::cancel::Stop;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::net::Response;
use crate::net::retry::Budget;
use crate::net::url::Url;

/// Why one try at a blob failed; [`Tries`] says whether there is another.
pub(crate) use crate::net::error::{Attempt, Failure};

/// The response to a request for a blob.
pub(crate) enum Answer<'a> {
    /// Exactly the requested range.
    Part(Flow<'a>),
    /// The whole blob.
    Whole(Flow<'a>),
    /// The registry does not serve this range.
    NoRange,
}

impl<'a> Repository<'a> {
    /// One attempt at a blob or a closed range of it, and whether a mirror answered. `second`: the
    /// blob had the wrong digest once.
    pub(crate) fn answer(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
        second: bool,
    ) -> Attempt<(Answer<'a>, bool)> {
        let (mut response, mirrored) = match self.blob(descriptor, range) {
            // Some registries and stores refuse ranges: then request it without. A store's 400 may
            // mean that its signed URL has expired.
            Err(Failure::Status(status))
                if range.is_some()
                    && (matches!(status.status, 405 | 416 | 501)
                        || status.status == 400 && !status.redirected) =>
            {
                return Ok((Answer::NoRange, false));
            }
            // A document that refers to it may embed it.
            Err(Failure::Status(status)) if status.status == 404 => {
                return match self.image.and_then(|image| image.embedded(descriptor)) {
                    Some(bytes) => Ok((Answer::Whole(Flow::embedded(bytes)), false)),
                    None => Err(Failure::Status(status)),
                };
            }
            other => other?,
        };
        let coding = Coding::of(&response.head);
        if let Coding::Other(name) = &coding {
            self.client.note_coding(&descriptor.digest, name);
        }
        let plain = coding == Coding::Identity;
        let held = match (range, holds(&response, range, descriptor.size)) {
            (Some(_), Holds::Part { proven }) if plain || proven => {
                Answer::Part(Flow::plain(response, coding))
            }
            (Some(_), Holds::Whole) if plain => Answer::Whole(Flow::plain(response, coding)),
            // It is undefined what a range of encoded bytes refers to.
            (Some(_), _) => Answer::NoRange,
            (None, Holds::Part { .. }) => {
                return Err(Failure::Protocol {
                    host: self.reference.registry(),
                    why: "sent a range that was not requested".into(),
                });
            }
            (None, _) if !plain => {
                Answer::Whole(Flow::encoded(response, coding, descriptor, second)?)
            }
            (None, Holds::Whole) => Answer::Whole(Flow::plain(response, coding)),
            (None, Holds::Neither(length)) => {
                let body = match length <= error::LIMIT as u64 {
                    true => response.body.excerpt(error::LIMIT),
                    false => Vec::new(),
                };
                return Err(wrong_size(descriptor, length, &error::in_place(&body)));
            }
        };
        Ok((held, mirrored))
    }

    /// One attempt at a blob or a closed range of it, and whether a mirror answered. A range is
    /// always requested at the registry, because a redirect's target may be valid only once.
    pub(super) fn blob(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> Attempt<(Response<'a>, bool)> {
        let digest = Some(&descriptor.digest);
        for mirror in self.client.mirrors(digest) {
            match self.try_at(mirror, |there| there.own_blob(descriptor, range)) {
                Ok(response) => return Ok((response, true)),
                Err(failure) => self.client.pass_over(mirror, digest, &failure)?,
            }
        }
        Ok((self.own_blob(descriptor, range)?, false))
    }

    pub(super) fn own_blob(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> Attempt<Response<'a>> {
        let url = self.url(&format!("/blobs/{}", descriptor.digest));
        let ask = Ask {
            accept: &["*/*"],
            range,
            blob: true,
            ..Ask::default()
        };
        match self.send(&url, ask) {
            Err(Failure::Status(failure))
                if failure.status == 404 && !descriptor.urls.is_empty() && !self.mirror =>
            {
                self.foreign(descriptor, range)
                    .unwrap_or(Err(Failure::Status(failure)))
            }
            other => other,
        }
    }

    /// A layer from its descriptor's URLs, without credentials and without answering a challenge
    /// (CVE-2020-15157).
    fn foreign(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> Option<Attempt<Response<'a>>> {
        let usable = |url: &String| {
            Url::parse(url)
                .ok()
                .filter(|url| url.origin.secure || self.client.is_insecure(&url.origin.authority()))
        };
        let ask = Ask {
            accept: &["*/*"],
            range,
            blob: true,
            ..Ask::default()
        };
        let mut outcome = None;
        for url in descriptor.urls.iter().filter_map(usable).take(4) {
            let followed = self.follow(&url, ask, false);
            outcome = Some(followed.map(|(response, _)| response));
            if matches!(outcome, Some(Ok(_))) {
                break;
            }
        }
        outcome
    }
}

/// The attempts for the bytes of one blob.
pub(crate) struct Tries<'a> {
    client: &'a Client,
    stop: &'a Stop,
    budget: Budget,
    doing: String,
}

impl<'a> Tries<'a> {
    pub fn new(client: &'a Client, stop: &'a Stop, descriptor: &Descriptor) -> Self {
        Self {
            client,
            stop,
            budget: client.budget(),
            doing: format!("downloading layer {}", descriptor.digest),
        }
    }

    /// Accounts for received bytes.
    pub fn progress(&mut self, bytes: u64) {
        self.budget.progress(bytes);
    }

    /// Waits before the next attempt; `false` if the pull was stopped meanwhile. Fails if there is
    /// no next one. `mirrored`: a mirror failed, and the registry is still left.
    pub fn again(&mut self, failure: Failure, mirrored: bool) -> Result<bool> {
        if self.client.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if self.stop.is_set() {
            return Ok(false);
        }
        if mirrored {
            self.client.strike_mirrors();
        }
        let Some(wait) = self.budget.next(&failure) else {
            if mirrored && self.client.leave_mirrors() {
                self.client
                    .note(&format!("{failure}; continuing without mirrors"));
                self.budget = self.client.budget();
                return Ok(true);
            }
            return Err(failure.into_error(&self.doing, self.budget.attempts()));
        };
        Ok(self.client.sleep(self.stop, wait, &failure))
    }
}

/// Reads a blob, or a part of it, in order, over as many connections as necessary.
pub(crate) struct Reader<'a> {
    repository: &'a Repository<'a>,
    descriptor: &'a Descriptor,
    tries: Tries<'a>,
    hasher: Hasher,
    /// The first byte that is read.
    from: u64,
    /// The next missing byte.
    at: u64,
    /// The byte after the last one.
    until: u64,
    open: Option<Open<'a>>,
    ranges: bool,
    finished: bool,
}

struct Open<'a> {
    flow: Flow<'a>,
    mirrored: bool,
    /// Bytes to skip before the wanted one, and their hash if nothing else proves that they are the
    /// same.
    skip: u64,
    skipped: Option<Hasher>,
    /// It is the response to a range request.
    ranged: bool,
}

impl<'a> Reader<'a> {
    pub fn new(
        repository: &'a Repository<'a>,
        descriptor: &'a Descriptor,
        from: u64,
        stop: &'a Stop,
    ) -> Self {
        Self {
            tries: Tries::new(repository.client, stop, descriptor),
            hasher: Hasher::new(descriptor.digest.algorithm()),
            repository,
            descriptor,
            from,
            at: from,
            until: descriptor.size,
            open: None,
            ranges: true,
            finished: false,
        }
    }

    /// The hash of what was read.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Whether the registry has not ignored a range so far.
    pub fn has_ranges(&self) -> bool {
        self.ranges
    }

    /// Reads some of the bytes before `until`; 0 at the end. Of a whole blob the digest matched
    /// then; of a part [`verify`] has to check it.
    pub fn read(&mut self, buffer: &mut [u8], until: u64) -> Result<usize> {
        self.until = until;
        loop {
            let failure = match self.some(buffer) {
                Ok(0) if self.finished => return Ok(0),
                Ok(0) if self.from > 0 || self.at < self.descriptor.size => return Ok(0),
                Ok(0) => {
                    verify(self.repository, self.descriptor, &self.hasher)?;
                    self.finished = true;
                    return Ok(0);
                }
                Ok(read) => {
                    self.tries.progress(read as u64);
                    self.hasher.update(&buffer[..read]);
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(failure) => failure,
            };
            let mirrored = self.open.take().is_some_and(|open| open.mirrored);
            if !self.tries.again(failure, mirrored)? {
                return Err(Error::Cancelled);
            }
        }
    }

    fn some(&mut self, buffer: &mut [u8]) -> Attempt<usize> {
        let left = self.until.saturating_sub(self.at);
        if left == 0 {
            if self.at == self.descriptor.size {
                self.check_end()?;
            }
            self.open = None;
            return Ok(0);
        }
        if self.open.is_none() {
            self.open = Some(self.request()?);
        }
        let Some(open) = &mut self.open else {
            return Ok(0);
        };
        loop {
            let most = if open.skip > 0 { open.skip } else { left };
            let room = most.min(buffer.len() as u64) as usize;
            let read = open.flow.read(&mut buffer[..room])?;
            if read == 0 {
                let host = self.repository.reference.registry();
                return Err(open.flow.short(self.descriptor, &host));
            }
            if open.skip == 0 {
                return Ok(read);
            }
            open.skip -= read as u64;
            if let Some(skipped) = &mut open.skipped {
                skipped.update(&buffer[..read]);
                if open.skip == 0 && skipped.clone().finish() != self.hasher.clone().finish() {
                    if open.ranged {
                        // A part was mistaken for the whole: without a range it is the whole.
                        self.open = None;
                        return self.some(buffer);
                    }
                    return Err(Failure::Protocol {
                        host: self.repository.reference.registry(),
                        why: "sent different bytes than before".into(),
                    });
                }
            }
        }
    }

    fn request(&mut self) -> Attempt<Open<'a>> {
        let range = (self.ranges && self.at > 0).then(|| (self.at, self.until - 1));
        let (answer, mirrored) = self.repository.answer(self.descriptor, range, false)?;
        let (flow, skip) = match answer {
            Answer::Part(flow) => (flow, 0),
            Answer::Whole(flow) => {
                // A registry that ignored a range gets no further range requests.
                self.ranges &= range.is_none();
                (flow, self.at)
            }
            Answer::NoRange => {
                self.ranges = false;
                return self.request();
            }
        };
        let unproven = skip > 0 && self.from == 0 && flow.length().is_none();
        Ok(Open {
            skipped: unproven.then(|| Hasher::new(self.descriptor.digest.algorithm())),
            flow,
            mirrored,
            skip,
            ranged: range.is_some(),
        })
    }

    /// A body that continues after the blob's end is hostile.
    fn check_end(&mut self) -> Attempt<()> {
        if let Some(mut open) = self.open.take()
            && open.flow.length().is_none()
            && open.flow.read(&mut [0])? > 0
        {
            return Err(open.flow.long(self.descriptor));
        }
        Ok(())
    }
}

/// Checks a blob's hash against its digest.
pub(crate) fn verify(
    repository: &Repository<'_>,
    descriptor: &Descriptor,
    hasher: &Hasher,
) -> Result<()> {
    let (digest, found) = (descriptor.digest, hasher.clone().finish());
    if found == digest {
        return Ok(());
    }
    let error = Error::Mismatch {
        blob: format!("layer {digest} of {}", repository.reference.name()),
        digest: Box::new(digest),
        expected: digest.to_string(),
        found: found.to_string(),
    };
    Err(repository.client.blame_coding(&digest, error))
}

/// What a response contains.
enum Holds {
    /// The requested range; `proven`: its Content-Range confirms it, for a blob of this size.
    Part {
        proven: bool,
    },
    Whole,
    /// Something else, of this length.
    Neither(u64),
}

/// What a response contains, by its Content-Range (RFC 9110, section 14.4) and its length: some
/// proxies send a range with 200, or everything with 206. The digest decides in the end.
fn holds(response: &Response<'_>, range: Option<(u64, u64)>, size: u64) -> Holds {
    let length = response.body.length();
    let fits = |wanted| length.is_none_or(|length| length == wanted);
    let neither = Holds::Neither(length.unwrap_or_default());
    let mut fields = response.head.fields.all("content-range");
    let stated = fields.next();
    let (first, last) = range.unwrap_or((0, size.saturating_sub(1)));
    let part = (last - first).saturating_add(1);
    let is = |first, last| {
        let total = stated.and_then(|field| total_of(field, first, last));
        total.filter(|total| total.is_none_or(|total| total == size))
    };
    match stated {
        _ if fields.any(|other| Some(other) != stated) => neither,
        Some(_) if range.is_some() && fits(part) && is(first, last).is_some() => Holds::Part {
            proven: is(first, last).flatten().is_some(),
        },
        Some(_) if fits(size) && (length.is_some() || is(0, size.saturating_sub(1)).is_some()) => {
            Holds::Whole
        }
        None if length == Some(size) => Holds::Whole,
        None if range.is_some() && length == Some(part) => Holds::Part { proven: false },
        None if length.is_none() && response.status() != 206 => Holds::Whole,
        _ if range.is_none() && response.status() == 206 => Holds::Part { proven: false },
        _ => neither,
    }
}

/// The total, or `*`, of a Content-Range with exactly these bytes.
fn total_of(field: &str, first: u64, last: u64) -> Option<Option<u64>> {
    let (range, total) = field.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let exact = from.trim().parse() == Ok(first) && to.trim().parse() == Ok(last);
    match (exact, total.trim()) {
        (true, "*") => Some(None),
        (true, total) => Some(Some(total.parse().ok()?)),
        _ => None,
    }
}

/// `said`: the message that arrived instead.
pub(crate) fn wrong_size(descriptor: &Descriptor, found: u64, said: &str) -> Failure {
    let more = if found == descriptor.size + 1 {
        "more".to_owned()
    } else {
        format!("{found} bytes{said}")
    };
    Failure::Final(Error::Mismatch {
        blob: format!("layer {}", descriptor.digest),
        digest: Box::new(descriptor.digest),
        expected: format!("{} bytes", descriptor.size),
        found: more,
    })
}
