//! What all requests of a run share: connections, credentials, tokens and the retry budget.

use super::auth::credentials::{Credential, Credentials, Found};
use super::auth::tokens::Tokens;

use super::Repository;
use super::mirror::{self, Mirror};
use crate::budget::Room;
use crate::cancel::Stop;
use crate::error::{Error, Result};
use crate::net::clock;
use crate::net::error::Failure;
use crate::net::proxy::Proxies;
use crate::net::retry::Budget;
use crate::net::tls::{Trust, TrustOptions};
use crate::net::url::{Origin, Url};
use crate::net::{Agent, Response, Timeouts};
use crate::reference::Reference;
use crate::secret::without_user;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Options for a [`Client`].
///
/// The proxy variables of the environment are respected.
pub struct ClientBuilder {
    insecure: bool,
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
    /// Registries speak plain HTTP.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// A user and a password for the registry of the first reference that the client is given;
    /// no other is told them. `source` says where they came from, for messages.
    pub fn credentials(mut self, user: &str, password: &str, source: &str) -> Self {
        let credential = Credential::password(user, password);
        self.credentials.given = Some(Found {
            credential,
            source: source.to_owned(),
        });
        self
    }

    /// Looks for credentials in this file only, of the form of Docker's config.json.
    ///
    /// Otherwise they are looked for, where a registry asks for some, in the environment
    /// (`DOCKERSAVE_USER` and `DOCKERSAVE_PASSWORD`, for the registry that `DOCKERSAVE_REGISTRY` names
    /// or the first one, `DOCKER_AUTH_CONFIG`, `REGISTRY_AUTH_FILE`) and in the files of Docker and containers tools, with their helpers.
    pub fn authfile(mut self, path: &Path) -> Self {
        self.credentials.file = Some(path.to_owned());
        self
    }

    /// Trusts the certificates of a PEM file beside the built-in roots. May be called repeatedly.
    pub fn trust_file(mut self, path: &Path) -> Self {
        self.trust.roots.push(path.to_owned());
        self
    }

    /// Identifies with a certificate chain and its key, both PEM files.
    pub fn identity(mut self, chain: &Path, key: &Path) -> Self {
        self.trust.identity = Some((chain.to_owned(), key.to_owned()));
        self
    }

    /// Checks no certificate. What arrives is still checked against its digest, but a reference by
    /// tag can then be answered by anyone.
    pub fn skip_verify(mut self, skip: bool) -> Self {
        self.trust.skip_verify = skip;
        self
    }

    /// Judges certificates by this time, in seconds since 1970, instead of the system's clock.
    ///
    /// Without it, a clock that stands before the time of this program's own source counts as
    /// standing there.
    pub fn time(mut self, seconds: u64) -> Self {
        self.trust.clock.given = Some(seconds);
        self
    }

    /// Asks a mirror, `[SCHEME://]HOST[:PORT][/PREFIX][?ns]`, for whatever has a digest before the
    /// registry itself. May be called repeatedly; each is told its own credentials only.
    pub fn mirror(mut self, address: &str) -> Self {
        self.mirrors.push(address.to_owned());
        self
    }

    /// Lets mirrors say, too, what a tag stands for: they are then trusted as the registry is.
    pub fn mirror_tags(mut self, trust: bool) -> Self {
        self.mirror_tags = trust;
        self
    }

    /// How often something is tried again without progress in between (default 5).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long a connection may bring nothing (default 30 s). An answer's head may take four
    /// times as long, all redirects on the way to it eight times. A body of which next to nothing
    /// comes is given up after twice as long; what is put around its bytes does not count.
    pub fn timeout(mut self, idle: Duration) -> Self {
        self.timeout = idle;
        self
    }

    /// Reads at most so many bytes a second, over all connections.
    pub fn limit_rate(mut self, rate: u64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Is told each step and request, without any secret, from several threads.
    pub fn log(mut self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Is told what somebody who waits should know, such as a failure that is tried again only
    /// after more than a second; the log is not told it then.
    pub fn notice(mut self, notice: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(notice));
        self
    }

    /// Reads the files that options name; connects to nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a file that cannot be used, [`Error::Usage`] for a proxy variable.
    pub fn build(self) -> Result<Client> {
        let proxies = Proxies::from_environment(&|name| std::env::var(name).ok())?;
        // The files that options name are read now, so that a wrong one is told at once.
        Trust::new(&self.trust)?;
        let mirrors: Vec<Mirror> = self
            .mirrors
            .iter()
            .map(|address| {
                Mirror::parse(address, self.insecure)
                    .map_err(|why| Error::usage(format!("mirror {}", without_user(address)), why))
            })
            .collect::<Result<_>>()?;
        let registries: Arc<Mutex<HashSet<Origin>>> = Arc::default();
        let clock_given = self.trust.clock.given;
        let (options, known) = (self.trust, registries.clone());
        let beside: Vec<Origin> = mirrors.iter().map(|m| m.base.origin.clone()).collect();
        let trust = move |origin: &Origin| {
            // Neither a registry's own certificates nor ours concern whoever it redirects to.
            let named = known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(origin);
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
        let mut agent = Agent::new(timeouts, proxies, Box::new(trust));
        if let Some(rate) = self.rate {
            agent.limit_rate(rate);
        }
        Ok(Client {
            agent,
            registries,
            insecure: self.insecure,
            believes_clock: !self.insecure && clock_given.is_none(),
            mirrors,
            mirror_tags: self.mirror_tags,
            credentials: self.credentials,
            retries: self.retries,
            tokens: Tokens::default(),
            codings: Mutex::default(),
            room: Room::default(),
            log: self.log,
            notice: self.notice,
        })
    }
}

/// Something that the user of a client should know, although it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The system's clock says an earlier time than that of this library's own source; certificates
    /// are judged by the latter. See [`ClientBuilder::time`].
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

/// Talks to registries. It can be shared between threads; a pull that is cancelled takes the
/// client with it.
pub struct Client {
    agent: Agent,
    /// The origins that references named.
    registries: Arc<Mutex<HashSet<Origin>>>,
    insecure: bool,
    /// Are certificates judged by the system's clock?
    believes_clock: bool,
    mirrors: Vec<Mirror>,
    mirror_tags: bool,
    credentials: Credentials,
    retries: u32,
    pub(super) tokens: Tokens,
    /// Blobs that came in an encoding that is not undone here, and its name.
    codings: Mutex<HashMap<crate::Digest, String>>,
    room: Room,
    log: Option<Log>,
    notice: Option<Log>,
}

impl Client {
    /// Begins with the default options.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            insecure: false,
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

    /// What the user of this client should know before it is used.
    pub fn warnings(&self) -> Vec<Warning> {
        let behind = self.believes_clock && clock::is_behind();
        behind.then_some(Warning::ClockBehind).into_iter().collect()
    }

    /// A handle on the repository of a reference.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a registry that cannot be addressed, such as a port out of range.
    pub fn repository(&self, reference: &Reference) -> Result<Repository<'_>> {
        Repository::new(self, reference)
    }

    /// Ends all that is under way on this client, from another thread; it cannot be used again.
    pub fn cancel(&self) {
        self.agent.abort();
    }

    /// What is being waited for, such as `an answer from HOST`, and for how long already; for those
    /// who show it.
    pub fn pending(&self) -> Option<(String, Duration)> {
        self.agent.pending.longest()
    }

    /// Has it been cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.agent.stop.is_set()
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What is left for documents.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) fn insecure(&self) -> bool {
        self.insecure
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The mirrors that may be asked for something; a tag has no digest.
    pub(super) fn mirrors(&self, digest: Option<&crate::Digest>) -> impl Iterator<Item = &Mirror> {
        let none = digest.is_none() && !self.mirror_tags;
        let mirrors = self.mirrors.iter().filter(move |_| !none);
        let digest = digest.copied();
        mirrors.filter(move |mirror| mirror.may_have(digest.as_ref()))
    }

    /// Are there mirrors, and may they not say what a tag stands for?
    pub(super) fn asks_mirrors_for_digests_alone(&self) -> bool {
        !self.mirror_tags && self.mirrors.iter().any(|mirror| mirror.may_have(None))
    }

    /// Asks mirrors for nothing more; were there any left?
    pub(crate) fn leave_mirrors(&self) -> bool {
        let left = self.mirrors.iter().filter(|mirror| mirror.leave()).count();
        left > 0
    }

    /// What a mirror sent broke off.
    pub(crate) fn strike_mirrors(&self) {
        self.mirrors.iter().for_each(Mirror::strike);
    }

    /// A mirror failed; fails only where everything was cancelled.
    pub(super) fn pass_over(
        &self,
        mirror: &Mirror,
        digest: Option<&crate::Digest>,
        failure: &Failure,
    ) -> std::result::Result<(), Failure> {
        if self.is_cancelled() {
            return Err(Failure::Final(Error::Interrupted(0)));
        }
        self.note(&mirror::told(mirror, failure));
        mirror.refused(digest, failure);
        Ok(())
    }

    /// A reference names the registry of this origin.
    pub(super) fn know(&self, origin: &Origin) {
        self.registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(origin.clone());
    }

    /// A blob came in an encoding that is not undone here.
    pub(super) fn note_coding(&self, digest: &crate::Digest, name: &str) {
        let mut codings = self.codings.lock().unwrap_or_else(PoisonError::into_inner);
        codings.insert(*digest, name.to_owned());
    }

    /// Why a blob is not what was named, where its encoding is the reason.
    pub(crate) fn blame_coding(&self, digest: &crate::Digest, error: Error) -> Error {
        let codings = self.codings.lock().unwrap_or_else(PoisonError::into_inner);
        match codings.get(digest) {
            Some(name) => super::content_encoding::unasked(&format!("layer {digest}"), name),
            None => error,
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.retries)
    }

    pub(crate) fn note(&self, line: &str) {
        if let Some(log) = &self.log {
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
        if self.log.is_some() {
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

    /// Waits before the try that follows a failure; `false` where it was stopped instead.
    pub(crate) fn sleep(&self, stop: &Stop, wait: Duration, failure: &Failure) -> bool {
        let line = format!("{failure}; retrying in {:.1} s", wait.as_secs_f64());
        match &self.notice {
            Some(notice) if wait > Duration::from_secs(1) => notice(&crate::error::line(&line)),
            _ => self.note(&line),
        }
        let _pending = self.agent.pending.begin("the next try", &"");
        stop.sleep(wait)
    }

    /// Waits before a further try; fails when there is none, or the client was cancelled.
    pub(crate) fn wait(&self, budget: &mut Budget, failure: Failure, doing: &str) -> Result<()> {
        let Some(wait) = budget.next(&failure) else {
            return Err(failure.into_error(doing, budget.attempts()));
        };
        if self.sleep(&self.agent.stop, wait, &failure) {
            Ok(())
        } else {
            Err(Error::Interrupted(0))
        }
    }

    /// Tries until it works, or the policy says that it will not.
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
