//! A blob's bytes: one answer to a request for it, and a reader that goes on where a connection
//! broke and ends only where the bytes are what the descriptor names.

use super::{Ask, Client, Repository};
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::net::Response;
use crate::net::failure::Failure;
use crate::net::retry::{Budget, Stop};
use crate::net::url::Url;

/// What answered a request for a blob.
pub(crate) enum Answer<'a> {
    /// Exactly the range that was asked for.
    Part(Response<'a>),
    /// The whole blob.
    Whole(Response<'a>),
    /// The registry does not serve this range.
    NoRange,
}

impl<'a> Repository<'a> {
    /// One try at a blob or a closed range of it, and whether a mirror answered.
    pub(crate) fn answer(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> std::result::Result<(Answer<'a>, bool), Failure> {
        let (response, mirrored) = match self.blob(descriptor, range) {
            // Some registries answer 400 or 416 to ranges: then once without.
            Err(Failure::Status(status))
                if range.is_some() && matches!(status.status, 400 | 416) && !status.redirected =>
            {
                return Ok((Answer::NoRange, false));
            }
            other => other?,
        };
        let answer = match (range, response.status()) {
            (None, 206) => {
                return Err(Failure::Protocol {
                    host: self.reference.registry(),
                    why: "sends a part that nobody asked for".into(),
                });
            }
            (Some(range), 206) if !is_range(&response, range, descriptor.size) => Answer::NoRange,
            (Some(_), 206) => Answer::Part(response),
            _ => {
                let length = response.body.length();
                if let Some(length) = length.filter(|length| *length != descriptor.size) {
                    return Err(wrong_size(descriptor, length));
                }
                Answer::Whole(response)
            }
        };
        Ok((answer, mirrored))
    }

    /// One try at a blob or a closed range of it, and whether a mirror answered. A range is always
    /// asked for here, at the registry: where it sends us may be good for one answer only.
    pub(super) fn blob(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> std::result::Result<(Response<'a>, bool), Failure> {
        let digest = Some(&descriptor.digest);
        for mirror in self.client.mirrors(digest) {
            match self.at(mirror).own_blob(descriptor, range) {
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
    ) -> std::result::Result<Response<'a>, Failure> {
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

    /// A layer from where its descriptor says, without credentials and without answering a
    /// challenge (CVE-2020-15157).
    fn foreign(
        &self,
        descriptor: &Descriptor,
        range: Option<(u64, u64)>,
    ) -> Option<std::result::Result<Response<'a>, Failure>> {
        let usable = |url: &String| {
            Url::parse(url)
                .ok()
                .filter(|url| url.origin.secure || self.client.insecure())
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

/// The tries for the bytes of one blob.
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

    /// So many bytes came.
    pub fn progress(&mut self, bytes: u64) {
        self.budget.progress(bytes);
    }

    /// Waits before the next try; `false` where all was stopped meanwhile. Fails where there is
    /// no next one. `mirrored`: what failed was a mirror, and the registry is still there.
    pub fn again(&mut self, failure: Failure, mirrored: bool) -> Result<bool> {
        if self.client.is_cancelled() {
            return Err(Error::Interrupted(0));
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
                    .note(&format!("{failure}; going on without mirrors"));
                self.budget = self.client.budget();
                return Ok(true);
            }
            return Err(failure.into_error(&self.doing, self.budget.attempts()));
        };
        self.client.note(&format!(
            "{failure}; trying again in {:.1} s",
            wait.as_secs_f64()
        ));
        Ok(self.stop.sleep(wait))
    }
}

/// Reads a blob from its first byte to its last, over as many connections as it takes.
pub(crate) struct Reader<'a> {
    repository: &'a Repository<'a>,
    descriptor: &'a Descriptor,
    tries: Tries<'a>,
    hasher: Hasher,
    /// The next byte that is wanted.
    at: u64,
    open: Option<Open<'a>>,
    ranges: bool,
    finished: bool,
}

struct Open<'a> {
    response: Response<'a>,
    mirrored: bool,
    /// Bytes before the wanted one that are still to come.
    skip: u64,
}

impl<'a> Reader<'a> {
    pub fn new(repository: &'a Repository<'a>, descriptor: &'a Descriptor, stop: &'a Stop) -> Self {
        Self {
            tries: Tries::new(repository.client, stop, descriptor),
            hasher: Hasher::new(descriptor.digest.algorithm()),
            repository,
            descriptor,
            at: 0,
            open: None,
            ranges: true,
            finished: false,
        }
    }

    /// Reads some bytes; 0 at the end, when all of them were right.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let failure = match self.some(buffer) {
                Ok(0) if self.finished => return Ok(0),
                Ok(0) => return self.judge(),
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
                return Err(Error::Interrupted(0));
            }
        }
    }

    fn some(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Failure> {
        let left = self.descriptor.size - self.at;
        if left == 0 {
            self.check_end()?;
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
            let read = open.response.body.read(&mut buffer[..room])?;
            if read == 0 {
                return Err(short(&self.repository.reference.registry()));
            }
            if open.skip == 0 {
                return Ok(read);
            }
            open.skip -= read as u64;
        }
    }

    fn request(&mut self) -> std::result::Result<Open<'a>, Failure> {
        let range = (self.ranges && self.at > 0).then(|| (self.at, self.descriptor.size - 1));
        let (answer, mirrored) = self.repository.answer(self.descriptor, range)?;
        let (response, skip) = match answer {
            Answer::Part(response) => (response, 0),
            Answer::Whole(response) => (response, self.at),
            Answer::NoRange => {
                self.ranges = false;
                return self.request();
            }
        };
        Ok(Open {
            response,
            mirrored,
            skip,
        })
    }

    /// A body that goes on behind the blob's end is hostile.
    fn check_end(&mut self) -> std::result::Result<(), Failure> {
        if let Some(mut open) = self.open.take()
            && open.response.body.length().is_none()
            && open.response.body.read(&mut [0])? > 0
        {
            return Err(wrong_size(self.descriptor, self.descriptor.size + 1));
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<usize> {
        let found = self.hasher.clone().finish();
        if found != self.descriptor.digest {
            return Err(Error::Mismatch {
                blob: format!(
                    "layer {} of {}",
                    self.descriptor.digest,
                    self.repository.reference.name()
                ),
                expected: self.descriptor.digest.to_string(),
                found: found.to_string(),
            });
        }
        self.finished = true;
        Ok(0)
    }
}

/// Is this answer exactly the range that was asked for (RFC 9110, section 14.4)?
fn is_range(response: &Response<'_>, (first, last): (u64, u64), size: u64) -> bool {
    let mut fields = response.head.fields.all("content-range");
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return false;
    };
    let Some((range, total)) = field
        .trim()
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let total = total.trim() == "*" || total.trim().parse() == Ok(size);
    let exact = range
        .split_once('-')
        .is_some_and(|(a, b)| a.trim().parse() == Ok(first) && b.trim().parse() == Ok(last));
    exact
        && total
        && response
            .body
            .length()
            .is_none_or(|length| length == last - first + 1)
}

pub(crate) fn short(host: &str) -> Failure {
    Failure::Closed {
        host: host.to_owned(),
        why: "ended the answer too early".into(),
    }
}

pub(crate) fn wrong_size(descriptor: &Descriptor, found: u64) -> Failure {
    let more = if found == descriptor.size + 1 {
        "more".to_owned()
    } else {
        format!("{found} bytes")
    };
    Failure::Final(Error::Mismatch {
        blob: format!("layer {}", descriptor.digest),
        expected: format!("{} bytes", descriptor.size),
        found: more,
    })
}
