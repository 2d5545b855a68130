//! One repository of a registry: its manifests, blobs and tags.
//!
//! Redirects are followed by hand, because credentials belong to an origin: a redirect's target
//! gets none. A request starts without a ping, a HEAD or a token; what the registry then requires
//! is remembered for the next request.

pub(crate) mod auth;
pub(crate) mod blob;
mod client;
pub(crate) mod content_encoding;
pub(crate) mod error;
mod mirror;
mod rate_limit;
mod referrers;
mod request;
pub(crate) mod resolve;
mod signatures;
pub(crate) mod tags;

pub use auth::credentials::same_registry;
pub use client::{Client, ClientBuilder, Warning};
pub use referrers::Referrer;
pub use resolve::{PlatformImage, Platforms};
pub use signatures::Requirements;
pub use tags::Tags;

use crate::budget;
use crate::error::{Error, Result};
use crate::hint::Hint;
use crate::image::Image;
use crate::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, Kinds, MANIFEST_LIMIT, OCI_INDEX,
    OCI_MANIFEST,
};
use crate::net::Response;
use crate::net::error::Failure;
use crate::net::url::Url;
use crate::reference::Reference;
use content_encoding::Coding;
use mirror::Mirror;
use request::Exchange;
use std::fmt;

/// A cheap handle on one repository.
pub struct Repository<'a> {
    client: &'a Client,
    reference: Reference,
    base: Url,
    /// `repository:NAME:pull`, as token servers want it.
    scope: String,
    /// Whether this is a mirror of the reference's registry.
    mirror: bool,
    /// The query of a mirror's URLs.
    query: String,
    /// The image whose blobs are requested: its documents may embed what the registry lacks.
    image: Option<&'a Image>,
}

/// The options of a request, besides its URL.
#[derive(Clone, Copy, Default)]
struct Ask<'r> {
    accept: &'r [&'static str],
    /// One Accept field per type instead of one for all.
    separate: bool,
    /// First and last byte.
    range: Option<(u64, u64)>,
    method: Option<&'static str>,
    /// A blob, which may be at a signed URL that expires.
    blob: bool,
}

const MANIFEST_TYPES: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

impl fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl<'a> Repository<'a> {
    pub(crate) fn new(client: &'a Client, reference: &Reference) -> Result<Self> {
        let base = Url::of(
            !client.is_insecure(reference.domain()),
            &reference.registry(),
            &format!("/v2/{}", reference.path()),
        )
        .map_err(|why| Error::usage(format!("registry {}", reference.registry()), why))?;
        let scope = format!("repository:{}:pull", reference.path());
        client.know(&base.origin);
        client.credentials().know(reference.domain());
        Ok(Self {
            client,
            reference: reference.clone(),
            base,
            scope,
            mirror: false,
            query: String::new(),
            image: None,
        })
    }

    /// For the blobs of an image.
    pub(crate) fn of_image(client: &'a Client, image: &'a Image) -> Result<Self> {
        let mut own = Self::new(client, &image.reference)?;
        own.image = Some(image);
        Ok(own)
    }

    /// One attempt at a mirror. It may need the registry's name to know the repository.
    fn try_at<T>(
        &self,
        mirror: &Mirror,
        once: impl Fn(&Self) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        let failure = match once(&self.at(mirror, mirror.wants_namespace())) {
            Err(failure) if mirror.may_want_namespace(&failure) => failure,
            outcome => return outcome,
        };
        let second = once(&self.at(mirror, true));
        mirror.learn_namespace(second.is_ok());
        second.map_err(|_| failure)
    }

    /// The same repository at a mirror; `namespace`: the mirror gets the registry's name.
    fn at(&self, mirror: &Mirror, namespace: bool) -> Self {
        let target = format!("{}/{}", mirror.base.target, self.reference.path());
        let name = target.strip_prefix("/v2/").unwrap_or(&target);
        Self {
            client: self.client,
            reference: self.reference.clone(),
            scope: format!("repository:{name}:pull"),
            base: Url {
                origin: mirror.base.origin.clone(),
                target,
            },
            mirror: true,
            query: match namespace {
                true => format!("?ns={}", self.reference.domain()),
                false => String::new(),
            },
            image: None,
        }
    }

    /// The reference this handle was made for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    fn url(&self, rest: &str) -> Url {
        Url {
            origin: self.base.origin.clone(),
            target: format!("{}{rest}{}", self.base.target, self.query),
        }
    }

    /// The index or manifest that the reference names.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Network`], and what [`Document::parse`]
    /// returns.
    pub fn manifest(&self) -> Result<Document> {
        let (what, target) = (format!("image {}", self.reference), self.reference.target());
        let expected = self.reference.digest();
        let wanted = Wanted {
            target: &target,
            expected,
            what: &what,
            kinds: Kinds::Images,
        };
        // The registry resolves the tag; a mirror may have the manifest. HEAD does not count as a
        // pull.
        if expected.is_none()
            && self.client.asks_mirrors_for_digests_alone()
            && let Some(digest) = self.stated_digest()?
        {
            let target = digest.to_string();
            let stated = Wanted {
                target: &target,
                expected: Some(&digest),
                ..wanted
            };
            if let Some(document) = self.mirrored_document(stated)? {
                return self.held(document, &what);
            }
        }
        self.fetch_document(wanted)
    }

    /// Reserves a document's share of the budget as long as it is held.
    fn held(&self, mut document: Document, what: &str) -> Result<Document> {
        let bytes = document.bytes().len() as u64;
        let room = self.client.room();
        let lease = room.take(bytes, document.content().descriptors(), what)?;
        document.hold(lease);
        Ok(document)
    }

    /// The index or manifest of an index's entry; its size and digest are checked.
    pub(crate) fn child(
        &self,
        index: &Document,
        descriptor: &Descriptor,
        kinds: Kinds,
    ) -> Result<Document> {
        let what = format!(
            "manifest {} of {}",
            descriptor.digest,
            self.reference.name()
        );
        let wanted = Wanted {
            target: &descriptor.digest.to_string(),
            expected: Some(&descriptor.digest),
            what: &what,
            kinds,
        };
        let document = match self.fetch_document(wanted) {
            // The index may embed what the registry lacks.
            Err(error @ Error::NotFound { .. }) => match index.embedded(&descriptor.digest) {
                Some(bytes) => {
                    let media_type = Some(descriptor.media_type.clone());
                    self.held(wanted.read(bytes, media_type)?, wanted.what)?
                }
                None => {
                    let hint = Hint::Platforms(self.reference.to_string());
                    return Err(error.with_hint(hint));
                }
            },
            other => other?,
        };
        let found = document.bytes().len() as u64;
        if found != descriptor.size {
            return Err(Error::Mismatch {
                blob: what,
                digest: Box::new(descriptor.digest),
                expected: format!("{} bytes", descriptor.size),
                found: format!("{found} bytes"),
            });
        }
        Ok(document)
    }

    fn fetch_document(&self, wanted: Wanted<'_>) -> Result<Document> {
        let document = match self.mirrored_document(wanted)? {
            Some(document) => document,
            None => self.own_document(wanted)?,
        };
        self.held(document, wanted.what)
    }

    /// From the first mirror that has it.
    fn mirrored_document(&self, wanted: Wanted<'_>) -> Result<Option<Document>> {
        let Wanted { expected, what, .. } = wanted;
        for mirror in self.client.mirrors(expected) {
            let ask = Ask {
                accept: &MANIFEST_TYPES,
                ..Ask::default()
            };
            let document = self
                .try_at(mirror, |there| {
                    there.document(&there.url(&manifest_path(wanted.target)), ask, wanted)
                })
                .and_then(|(bytes, media_type)| Ok(wanted.read(bytes, media_type)?));
            match document {
                Ok(document) => return Ok(Some(document)),
                Err(failure) => self
                    .client
                    .pass_over(mirror, expected, &failure)
                    .map_err(|failure| failure.into_error(what, 1))?,
            }
        }
        Ok(None)
    }

    /// From the registry itself.
    fn own_document(&self, wanted: Wanted<'_>) -> Result<Document> {
        let Wanted { expected, what, .. } = wanted;
        let url = self.url(&manifest_path(wanted.target));
        let mut separate = false;
        loop {
            let ask = Ask {
                accept: &MANIFEST_TYPES,
                separate,
                ..Ask::default()
            };
            let fetched = self.client.again(&format!("requesting {what}"), || {
                self.document(&url, ask, wanted)
            });
            let parsed = fetched.and_then(|(bytes, media_type)| wanted.read(bytes, media_type));
            // Harbor 1.1 reads only the first type of a joined field (containerd#5632).
            match parsed {
                Err(Error::Unsupported { .. }) if !separate && expected.is_none() => {
                    separate = true
                }
                Err(Error::NotFound { what, .. })
                    if !separate && what.contains("accept header") =>
                {
                    separate = true
                }
                Err(Error::NotFound { what: detail, .. }) => {
                    return Err(self.not_found(wanted, &detail));
                }
                other => return other,
            }
        }
    }

    /// One attempt at a document, with its media type.
    fn document(
        &self,
        url: &Url,
        ask: Ask<'_>,
        wanted: Wanted<'_>,
    ) -> std::result::Result<(Vec<u8>, Option<String>), Failure> {
        self.document_within(url, ask, wanted, MANIFEST_LIMIT)
    }

    /// The same, of at most so many bytes.
    fn document_within(
        &self,
        url: &Url,
        ask: Ask<'_>,
        wanted: Wanted<'_>,
        most: u64,
    ) -> std::result::Result<(Vec<u8>, Option<String>), Failure> {
        let response = self.send(url, ask)?;
        let (status, media_type) = (
            response.status(),
            response.field("content-type").map(str::to_owned),
        );
        let limit = self.client.room().limit(most);
        let bytes = match content_encoding::document(response, limit, wanted.what) {
            Err(Failure::Final(Error::TooLarge { .. })) if limit < most => {
                return Err(budget::exhausted(wanted.what).into());
            }
            other => other?,
        };
        let pinned = wanted.expected.is_some();
        if let Some(failure) = error::disguised(url, status, &bytes, pinned) {
            return Err(Failure::Status(Box::new(failure)));
        }
        Ok((bytes, media_type))
    }

    fn not_found(&self, Wanted { what, target, .. }: Wanted<'_>, detail: &str) -> Error {
        // A registry behind a redirect may have answered.
        let (before, detail) = detail.rsplit_once(" answered ").unwrap_or_default();
        let host = before.rsplit(' ').next().unwrap_or_default();
        let own = target == self.reference.target();
        let error = Error::not_found(
            format!("there is no {what} ({host} answered {detail})"),
            Vec::new(),
        );
        match self.reference.tag() {
            Some(_) if own && self.reference.digest().is_none() => {
                error.with_hint(Hint::Tags(self.reference.familiar()))
            }
            _ => error,
        }
    }

    /// A small blob, such as a config, checked against its descriptor.
    pub(crate) fn small_blob(
        &self,
        descriptor: &Descriptor,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>> {
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
        if descriptor.size > self.client.room().limit(limit) {
            return Err(budget::exhausted(what));
        }
        let doing = format!("requesting {what}");
        let mut again = true;
        let mut coding = Coding::Identity;
        loop {
            let bytes = self.client.again(&doing, || {
                let (response, mirrored) = self.blob(descriptor, None)?;
                // One byte more than the size detects a longer document.
                let most = descriptor.size + 1;
                coding = Coding::of(&response.head);
                match content_encoding::at_most(response, &coding, most) {
                    Err(_) if mirrored => {
                        self.client.leave_mirrors();
                        let response = self.own_blob(descriptor, None)?;
                        coding = Coding::of(&response.head);
                        content_encoding::at_most(response, &coding, most)
                    }
                    other => other,
                }
            })?;
            if bytes.len() as u64 == descriptor.size && descriptor.digest.matches(&bytes) {
                return Ok(bytes);
            }
            if self.client.leave_mirrors() {
                continue;
            }
            if !again {
                return Err(coding.error(what).unwrap_or_else(|| Error::Mismatch {
                    blob: what.to_owned(),
                    digest: Box::new(descriptor.digest),
                    expected: format!("{} ({} bytes)", descriptor.digest, descriptor.size),
                    found: format!(
                        "{} ({} bytes){}",
                        crate::Digest::of(descriptor.digest.algorithm(), &bytes),
                        bytes.len(),
                        error::in_place(&bytes)
                    ),
                }));
            }
            again = false;
        }
    }

    /// Relative links are common; a host that is neither the registry nor answered for it is refused
    /// (server-side request forgery). A registry behind a proxy may not know whether it is
    /// reached by HTTPS.
    fn next_page(&self, from: &Url, link: &str, what: &str) -> Result<Url> {
        let wrong =
            |why: String| Error::malformed(format!("the next page {what} at {}", from.origin), why);
        let mut next = from.join(link).map_err(wrong)?;
        if next.origin.host == from.origin.host && from.origin.secure != next.origin.secure {
            next.origin = from.origin.clone();
        }
        if next.origin != from.origin && next.origin != self.base.origin {
            return Err(wrong(format!("leads to another host, {}", next.origin)));
        }
        Ok(next)
    }

    /// One request to the registry, including authentication and redirects.
    fn send(&self, url: &Url, ask: Ask<'_>) -> std::result::Result<Response<'a>, Failure> {
        Ok(self.follow(url, ask, true)?.0)
    }

    /// The same, with the URL that answered.
    fn follow(
        &self,
        start: &Url,
        ask: Ask<'_>,
        with_credentials: bool,
    ) -> std::result::Result<(Response<'a>, Url), Failure> {
        let mut exchange = Exchange::new(self, start, ask, with_credentials);
        loop {
            let response = exchange
                .once()
                .map_err(|failure| exchange.explain(failure))?;
            match response.status() {
                200..=206 => return Ok((response, exchange.url())),
                301 | 302 | 303 | 307 | 308 => exchange.redirect(response)?,
                _ => {
                    let recovered = exchange.recover(response);
                    recovered.map_err(|failure| self.with_problems(exchange.explain(failure)))?;
                }
            }
        }
    }
}

/// A requested index or manifest.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    /// Its tag or digest.
    target: &'w str,
    /// Its expected digest, if known.
    expected: Option<&'w crate::Digest>,
    /// Its name in messages.
    what: &'w str,
    kinds: Kinds,
}

impl Wanted<'_> {
    fn read(self, bytes: Vec<u8>, media_type: Option<String>) -> Result<Document> {
        let media_type = media_type.as_deref();
        Document::read(bytes, media_type, self.expected, self.what, self.kinds)
    }
}

fn manifest_path(target: &str) -> String {
    format!("/manifests/{target}")
}

impl Repository<'_> {
    /// Unusable files and helpers are mentioned where they might have mattered.
    fn with_problems(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Status(mut status)
                if matches!(status.status, 401 | 403) && !status.redirected =>
            {
                for problem in self.client.credentials().problems() {
                    status
                        .message
                        .push_str(if status.message.is_empty() { "" } else { "; " });
                    status.message.push_str(&problem);
                }
                Failure::Status(status)
            }
            other => other,
        }
    }

    fn credential(&self) -> Option<auth::credentials::Found> {
        let credentials = self.client.credentials();
        let before = credentials.problems().len();
        // A helper may take its time.
        let domain = &self.reference.domain();
        let pending = &self.client.agent().pending;
        let _pending = pending.begin("credentials for", domain);
        let found = if self.mirror {
            let name = self.base.target.strip_prefix("/v2/").unwrap_or_default();
            credentials.find_by_name(&self.base.origin.authority(), name)
        } else {
            credentials.find(self.reference.domain(), self.reference.path())
        };
        for problem in credentials.problems().iter().skip(before) {
            self.client.note(problem);
        }
        found
    }
}
