//! What all requests of a run share: connections, credentials, tokens and the retry budget.

use super::Repository;
use super::auth::credentials::{Credential, Credentials, Found};
use super::auth::tokens::Tokens;
use super::mirror::{self, Mirror};
use crate::budget::Room;
use crate::cancel::{CancelToken, Stop};
use crate::error::{Error, Result};
use crate::net::clock;
use crate::net::error::Failure;
use crate::net::proxy::Proxies;
use crate::net::retry::Budget;
use crate::net::tls::{Trust, TrustOptions};
use crate::net::url::{Origin, Url};
use crate::net::{Agent, Response, Timeouts};
use crate::reference::{Reference, is_hub};
use crate::secret::without_user;
use crate::sync::lock;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Options for a [`Client`].
///
/// The proxy variables of the environment are respected.
pub struct ClientBuilder {
    insecure: bool,
    insecure_hosts: Vec<String>,
    trust: TrustOptions,
    retries: u32,
    timeout: Duration,
    rate: Option<u64>,
    mirrors: Vec<String>,
    mirror_tags: bool,
    credentials: Credentials,
    log: Option<Log>,
    notice: Option<Log>,
}

impl ClientBuilder {
    /// Registries that references or mirrors name speak plain HTTP; Docker Hub never does.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Uses plain HTTP for the registry or mirror of this name, `HOST[:PORT]`, but never for Docker
    /// Hub. Can be called repeatedly.
    pub fn insecure_host(mut self, host: &str) -> Self {
        self.insecure_hosts.push(host.to_ascii_lowercase());
        self
    }

    /// Sets user and password for the registry of the first reference that the client is given; no
    /// other registry gets them. `source` is where they came from, for messages.
    pub fn credentials(self, user: &str, password: &str, source: &str) -> Self {
        self.given(None, user, password, source)
    }

    /// Sets user and password for the registry or mirror of this name, `HOST[:PORT]`; no other gets
    /// them. Can be called repeatedly.
    pub fn credentials_for(self, host: &str, user: &str, password: &str, source: &str) -> Self {
        self.given(Some(host.to_owned()), user, password, source)
    }

    fn given(mut self, host: Option<String>, user: &str, password: &str, source: &str) -> Self {
        let found = Found {
            credential: Credential::password(user, password),
            source: source.to_owned(),
        };
        self.credentials.given.push((host, found));
        self
    }

    /// Looks for credentials only in this file, in the format of Docker's config.json.
    ///
    /// Otherwise, when a registry asks for credentials, they are looked up in the environment
    /// (`DOCKERSAVE_USER` and `DOCKERSAVE_PASSWORD`, for the registry that `DOCKERSAVE_REGISTRY`
    /// names or the first one, `DOCKER_AUTH_CONFIG`, `REGISTRY_AUTH_FILE`) and in the files of
    /// Docker and containers tools, with their helpers.
    pub fn authfile(mut self, path: impl AsRef<Path>) -> Self {
        self.credentials.file = Some(path.as_ref().to_owned());
        self
    }

    /// Trusts the certificates of a PEM file besides the built-in roots. May be called repeatedly.
    pub fn add_root_certificates(mut self, path: impl AsRef<Path>) -> Self {
        self.trust.roots.push(path.as_ref().to_owned());
        self
    }

    /// Sets a client certificate chain and its key, both PEM files.
    pub fn identity(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.trust.identity = Some((chain.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// Disables certificate checks. Content is still checked against its digest, but anyone can
    /// then answer what a tag means.
    pub fn danger_accept_invalid_certs(mut self, skip: bool) -> Self {
        self.trust.skip_verify = skip;
        self
    }

    /// Checks certificates against this time instead of the system clock.
    ///
    /// Without it, a clock before the date of this program's source counts as that date.
    pub fn verification_time(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        self.trust.clock.given = Some(since.map_or(0, |since| since.as_secs()));
        self
    }

    /// Adds a mirror, `[SCHEME://]HOST[:PORT][/PREFIX][?ns]`, which is asked before the registry
    /// for everything that has a digest. May be called repeatedly; each gets only its own
    /// credentials.
    pub fn mirror(mut self, address: &str) -> Self {
        self.mirrors.push(address.to_owned());
        self
    }

    /// Lets mirrors resolve tags, too: they are then trusted like the registry.
    pub fn mirror_tags(mut self, trust: bool) -> Self {
        self.mirror_tags = trust;
        self
    }

    /// Sets the number of retries without progress in between (default 5).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how long a connection may be idle (default 30 s). The first byte of a response may take
    /// four times as long, all redirects eight times. A body that only trickles is given up after
    /// twice as long; framing bytes do not count.
    pub fn timeout(mut self, idle: Duration) -> Self {
        self.timeout = idle;
        self
    }

    /// Limits the bytes per second of all connections together.
    pub fn limit_rate(mut self, rate: u64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets a callback for each step and request, without secrets, called from several threads.
    pub fn log(mut self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Sets a callback for what a waiting user should know, such as a retry after more than a
    /// second; the log does not get it then.
    pub fn notice(mut self, notice: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(notice));
        self
    }

    /// Reads the files named in options; opens no connection.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for an unusable file, [`Error::Usage`] for an invalid proxy variable.
    pub fn build(self) -> Result<Client> {
        let bare = self.trust.bare;
        let proxies = Proxies::from_environment(&|name| match bare {
            true => None,
            false => std::env::var(name).ok(),
        })?;
        // The files named in options are read now, so that errors appear at once.
        Trust::new(&self.trust)?;
        let insecure = Insecure {
            all: self.insecure,
            hosts: self.insecure_hosts,
        };
        let mirrors: Vec<Mirror> = self
            .mirrors
            .iter()
            .map(|address| {
                let host = address.split(['/', '?']).next().unwrap_or_default();
                Mirror::parse(address, insecure.holds(host))
                    .map_err(|why| Error::usage(format!("mirror {}", without_user(address)), why))
            })
            .collect::<Result<_>>()?;
        let registries: Arc<Mutex<HashSet<Origin>>> = Arc::default();
        let clock_given = self.trust.clock.given;
        let (options, known) = (self.trust, registries.clone());
        let beside: Vec<Origin> = mirrors.iter().map(|m| m.base.origin.clone()).collect();
        let trust = move |origin: &Origin| {
            // A redirect's target gets neither the registry's own certificates nor ours.
            let named = lock(&known).contains(origin);
            let options = if named {
                options.clone().with_directories(origin)?
            } else if beside.contains(origin) {
                options
                    .clone()
                    .without_identity()
                    .with_directories(origin)?
            } else {
                options.clone().without_identity()
            };
            Trust::new(&options).map(Arc::new)
        };
        let timeouts = Timeouts::from_idle(self.timeout);
        let agent = Agent::new(timeouts, proxies, Box::new(trust), self.rate);
        let shared = Shared {
            registries,
            believes_clock: !insecure.all && clock_given.is_none(),
            insecure,
            mirrors,
            mirror_tags: self.mirror_tags,
            credentials: self.credentials,
            retries: self.retries,
            tokens: Tokens::default(),
            codings: Mutex::default(),
            room: Room::default(),
            log: self.log,
            notice: self.notice,
        };
        Ok(Client {
            shared: Arc::new(shared),
            agent,
        })
    }
}

/// The hosts that speak plain HTTP.
struct Insecure {
    all: bool,
    hosts: Vec<String>,
}

impl Insecure {
    fn holds(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        !is_hub(&host) && (self.all || self.hosts.contains(&host))
    }
}

/// Without credentials.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("insecure", &self.insecure)
            .field("retries", &self.retries)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Without credentials and tokens.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("retries", &self.shared.retries)
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Something that the user of a client should know, although it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The system's clock says an earlier time than that of this library's own source; certificates
    /// are judged by the latter. See [`ClientBuilder::verification_time`].
    ClockBehind,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockBehind => write!(
                f,
                "{}: certificates are judged by that",
                clock::Clock::default().told()
            ),
        }
    }
}

/// A client for registries. Clones share connections, credentials and tokens; it can be used by
/// several threads at once.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    agent: Agent,
}

struct Shared {
    /// The origins named by references.
    registries: Arc<Mutex<HashSet<Origin>>>,
    insecure: Insecure,
    /// Whether certificates are checked against the system clock.
    believes_clock: bool,
    mirrors: Vec<Mirror>,
    mirror_tags: bool,
    credentials: Credentials,
    retries: u32,
    tokens: Tokens,
    /// Blobs that arrived in an unsupported encoding, and its name.
    codings: Mutex<HashMap<crate::Digest, String>>,
    room: Room,
    log: Option<Log>,
    notice: Option<Log>,
}

impl Client {
    /// A builder with the default options: proxies, credentials and certificates are found as Docker
    /// and the containers tools find them. [`Client::bare`] does without.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            insecure: false,
            insecure_hosts: Vec::new(),
            trust: TrustOptions::default(),
            retries: 5,
            timeout: Duration::from_secs(30),
            rate: None,
            mirrors: Vec::new(),
            mirror_tags: false,
            credentials: Credentials::default(),
            log: None,
            notice: None,
        }
    }

    /// Begins with a client that knows nothing but its options: no variable of the environment
    /// (proxies, credentials, certificates), no file of Docker's or containers' tools, no credential
    /// helper. What options name is used all the same; helpers that an [`ClientBuilder::authfile`]
    /// names are not run.
    pub fn bare() -> ClientBuilder {
        let mut builder = Self::builder();
        builder.trust.bare = true;
        builder.credentials.bare = true;
        builder
    }

    /// What the user of this client should know before it is used.
    pub fn warnings(&self) -> Vec<Warning> {
        let behind = self.shared.believes_clock && clock::is_behind();
        behind.then_some(Warning::ClockBehind).into_iter().collect()
    }

    /// A handle on the repository of a reference.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an invalid registry, such as a port out of range.
    pub fn repository(&self, reference: &Reference) -> Result<Repository<'_>> {
        Repository::new(self, reference)
    }

    /// The same client for operations that this token cancels: requests through its repositories,
    /// and pulls. The client itself stays usable.
    pub fn cancelled_by(&self, token: &CancelToken) -> Self {
        Self {
            shared: self.shared.clone(),
            agent: self.agent.cancelled_by(token),
        }
    }

    /// What the client is waiting for, such as `an answer from HOST`, and for how long, for progress
    /// displays.
    pub fn pending(&self) -> Option<(String, Duration)> {
        self.agent.pending.longest()
    }

    /// Whether the token of this client was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.agent.cancel().is_cancelled()
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The budget that is left for documents.
    pub(super) fn room(&self) -> &Room {
        &self.shared.room
    }

    /// What was last accepted, by origin and scope.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    /// Whether this registry speaks plain HTTP.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.shared.insecure.holds(host)
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    /// The mirrors to ask for something; a tag has no digest.
    pub(super) fn mirrors(&self, digest: Option<&crate::Digest>) -> impl Iterator<Item = &Mirror> {
        let none = digest.is_none() && !self.shared.mirror_tags;
        let mirrors = self.shared.mirrors.iter().filter(move |_| !none);
        let digest = digest.copied();
        mirrors.filter(move |mirror| mirror.may_have(digest.as_ref()))
    }

    /// Whether there are mirrors that may not resolve tags.
    pub(super) fn asks_mirrors_for_digests_alone(&self) -> bool {
        !self.shared.mirror_tags
            && self
                .shared
                .mirrors
                .iter()
                .any(|mirror| mirror.may_have(None))
    }

    /// Stops using mirrors; returns whether there were any left.
    pub(crate) fn leave_mirrors(&self) -> bool {
        let left = self
            .shared
            .mirrors
            .iter()
            .filter(|mirror| mirror.leave())
            .count();
        left > 0
    }

    /// A mirror's response broke off.
    pub(crate) fn strike_mirrors(&self) {
        self.shared.mirrors.iter().for_each(Mirror::strike);
    }

    /// Handles a mirror's failure; fails only if everything was cancelled.
    pub(super) fn pass_over(
        &self,
        mirror: &Mirror,
        digest: Option<&crate::Digest>,
        failure: &Failure,
    ) -> std::result::Result<(), Failure> {
        if self.is_cancelled() {
            return Err(Failure::Final(Error::Cancelled));
        }
        self.note(&mirror::told(mirror, failure));
        mirror.refused(digest, failure);
        Ok(())
    }

    /// Registers the origin of a reference's registry.
    pub(super) fn know(&self, origin: &Origin) {
        lock(&self.shared.registries).insert(origin.clone());
    }

    /// Records that a blob arrived in an unsupported encoding.
    pub(super) fn note_coding(&self, digest: &crate::Digest, name: &str) {
        let mut codings = lock(&self.shared.codings);
        codings.insert(*digest, name.to_owned());
    }

    /// The error for a blob that does not match, if its encoding is the reason.
    pub(crate) fn blame_coding(&self, digest: &crate::Digest, error: Error) -> Error {
        let codings = lock(&self.shared.codings);
        match codings.get(digest) {
            Some(name) => super::content_encoding::unasked(&format!("layer {digest}"), name),
            None => error,
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.shared.retries)
    }

    pub(crate) fn note(&self, line: &str) {
        if let Some(log) = &self.shared.log {
            log(&crate::error::line(line));
        }
    }

    pub(crate) fn note_answer(
        &self,
        method: &str,
        url: &Url,
        range: Option<(u64, u64)>,
        response: &Response<'_>,
    ) {
        if self.shared.log.is_some() {
            let range = range
                .map(|(first, last)| format!(" [{first}-{last}]"))
                .unwrap_or_default();
            self.note(&format!("{method} {url}{range}: {}", response.status()));
        }
        for warning in response
            .head
            .fields
            .all("warning")
            .filter_map(|text| text.strip_prefix("299 "))
        {
            let text = warning
                .split_once('"')
                .map_or(warning, |(_, text)| text.trim_end_matches('"'));
            self.note(&format!(
                "{} warns: {}",
                url.origin,
                crate::error::printable(text, 300)
            ));
        }
    }

    /// Waits before the attempt after a failure; `false` if it was stopped meanwhile.
    pub(crate) fn sleep(&self, stop: &Stop, wait: Duration, failure: &Failure) -> bool {
        let line = format!("{failure}; retrying in {:.1} s", wait.as_secs_f64());
        match &self.shared.notice {
            Some(notice) if wait > Duration::from_secs(1) => notice(&crate::error::line(&line)),
            _ => self.note(&line),
        }
        let _pending = self.agent.pending.begin("the next try", &"");
        stop.sleep(wait)
    }

    /// Waits before another attempt; fails if there is none, or the client was cancelled.
    pub(crate) fn wait(&self, budget: &mut Budget, failure: Failure, doing: &str) -> Result<()> {
        let Some(wait) = budget.next(&failure) else {
            return Err(failure.into_error(doing, budget.attempts()));
        };
        if self.sleep(self.agent.stop(), wait, &failure) {
            Ok(())
        } else {
            Err(Error::Cancelled)
        }
    }

    /// Retries until it works or the policy gives up.
    pub(crate) fn again<T>(
        &self,
        doing: &str,
        mut once: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut budget = self.budget();
        loop {
            match once() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(&mut budget, failure, doing)?,
            }
        }
    }
}
