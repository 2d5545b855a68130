//! What all requests of a run share: connections, credentials, tokens, and the patience.

use super::auth::challenge::{self, Authorization, Plan};
use super::auth::credentials::{Credential, Credentials, Found};
use super::auth::realm::{Challenger, is_loopback, literal};
use super::content_encoding;
use super::mirror::{self, Mirror};
use super::{Repository, error};
use crate::budget::Room;
use crate::error::{Error, Result};
use crate::net::error::Failure;
use crate::net::proxy::Proxies;
use crate::net::retry::Budget;
use crate::net::tls::{Trust, TrustOptions};
use crate::net::url::{Origin, Url};
use crate::net::{Agent, Request, Response, Timeouts};
use crate::reference::Reference;
use crate::secret::without_user;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
            mirrors,
            mirror_tags: self.mirror_tags,
            credentials: self.credentials,
            retries: self.retries,
            tokens: Mutex::default(),
            codings: Mutex::default(),
            room: Room::default(),
            log: self.log,
        })
    }
}

/// What is known for an origin and a scope; `version` counts renewals.
struct Known {
    authorization: Authorization,
    version: u64,
}

/// Talks to registries. It can be shared between threads; a pull that is cancelled takes the
/// client with it.
pub struct Client {
    agent: Agent,
    /// The origins that references named.
    registries: Arc<Mutex<HashSet<Origin>>>,
    insecure: bool,
    mirrors: Vec<Mirror>,
    mirror_tags: bool,
    credentials: Credentials,
    retries: u32,
    tokens: Mutex<HashMap<(Origin, String), Known>>,
    /// Blobs that came in an encoding that is not undone here, and its name.
    codings: Mutex<HashMap<crate::Digest, String>>,
    room: Room,
    log: Option<Log>,
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
        }
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

    pub(crate) fn is_cancelled(&self) -> bool {
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

    /// Waits before a further try; fails when there is none, or the client was cancelled.
    pub(crate) fn wait(&self, budget: &mut Budget, failure: Failure, doing: &str) -> Result<()> {
        let Some(wait) = budget.next(&failure) else {
            return Err(failure.into_error(doing, budget.attempts()));
        };
        self.note(&format!(
            "{failure}; trying again in {:.1} s",
            wait.as_secs_f64()
        ));
        if self.agent.stop.sleep(wait) {
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

    fn tokens(&self) -> MutexGuard<'_, HashMap<(Origin, String), Known>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last accepted for this origin and scope, while it is valid.
    pub(super) fn authorization(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Option<(Authorization, u64)> {
        let tokens = self.tokens();
        let known = tokens.get(&(origin.clone(), scope.to_owned()))?;
        known
            .authorization
            .is_current()
            .then(|| (known.authorization.clone(), known.version))
    }

    /// Answers a challenge. Of several threads that were refused with the same token, one renews
    /// it and the others take what it got: `used` is the version that was refused.
    pub(super) fn authenticate(
        &self,
        challenger: Challenger<'_>,
        scope: &str,
        plan: Plan,
        credential: Option<Found>,
        used: Option<u64>,
    ) -> std::result::Result<(Authorization, u64), Failure> {
        let origin = challenger.origin;
        let mut tokens = self.tokens();
        let key = (origin.clone(), scope.to_owned());
        let mut version = 0;
        if let Some(known) = tokens.get(&key) {
            if used.is_none_or(|used| used < known.version) && known.authorization.is_current() {
                return Ok((known.authorization.clone(), known.version));
            }
            version = known.version + 1;
        }
        if let Some(found) = &credential {
            self.note(&format!("credentials for {origin} from {}", found.source));
        }
        let authorization = match (plan, &credential) {
            (
                _,
                Some(Found {
                    credential: Credential::RegistryToken(token),
                    source,
                }),
            ) => Authorization::bearer(token, None, Some(source.clone())),
            (
                Plan::Basic,
                Some(Found {
                    credential: Credential::Password { user, password },
                    source,
                }),
            ) => Authorization::basic(user, password.expose(), source),
            (Plan::Basic, _) => {
                return Err(Failure::Final(Error::Refused {
                    host: origin.to_string(),
                    status: 401,
                    detail: "it wants a user and a password: see --user".into(),
                }));
            }
            (
                Plan::Bearer {
                    realm,
                    service,
                    scopes,
                },
                _,
            ) => self.token(challenger, &realm, &service, &scopes, credential.as_ref())?,
        };
        tokens.insert(
            key,
            Known {
                authorization: authorization.clone(),
                version,
            },
        );
        Ok((authorization, version))
    }

    /// A token from a realm: by POST for an identity token, by GET otherwise.
    pub(super) fn token(
        &self,
        challenger: Challenger<'_>,
        realm: &Url,
        service: &str,
        scopes: &[String],
        credential: Option<&Found>,
    ) -> std::result::Result<Authorization, Failure> {
        let source = credential.map(|found| &found.source);
        let (mut url, form) = match credential.map(|found| &found.credential) {
            Some(Credential::IdentityToken { token, .. }) => {
                let form = challenge::token_form(token.expose(), service, scopes);
                (realm.clone(), Some(form))
            }
            Some(Credential::Password { user, .. }) => (
                challenge::token_url(realm, service, scopes, Some(user)),
                None,
            ),
            _ => (challenge::token_url(realm, service, scopes, None), None),
        };
        let field = challenge::password_field(credential);
        let deadline = Some(self.agent.deadline());
        // A realm may move. Credentials follow within its origin, or to https on its host; a request
        // without any has nothing to tell.
        for _ in 0..4 {
            self.check_realm(challenger, &url.origin)?;
            let mut request = Request::get(&url);
            request.deadline = deadline;
            if let Some(field) = &field {
                request = request.field("Authorization", field);
            }
            if form.is_some() {
                request.method = "POST";
                request.form = form.clone();
            }
            let response = self.agent.send(&request)?;
            self.note_answer(request.method, &url, None, &response);
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return match self.take_token(response, &url, source) {
                    // GCR, ACR and Artifactory do not know the form, each with a status of its own.
                    Err(Failure::Status(status))
                        if form.is_some() && matches!(status.status, 400 | 401 | 404 | 405) =>
                    {
                        let beside = credential.and_then(Found::beside_token);
                        self.token(challenger, realm, service, scopes, beside.as_ref())
                    }
                    other => other,
                };
            }
            let next = response
                .field("location")
                .and_then(|location| url.join(location).ok());
            response.body.drain();
            let safe = |next: &Origin| {
                let upgraded = next.secure && !url.origin.secure && next.host == url.origin.host;
                field.is_none() && form.is_none() || *next == url.origin || upgraded
            };
            match next.filter(|next| safe(&next.origin)) {
                Some(next) => url = next,
                None => break,
            }
        }
        Err(Failure::Final(Error::malformed(
            format!("the token endpoint {}", realm.origin),
            "redirects to another host, which is not told any credentials, or too often",
        )))
    }

    /// Whoever sent a challenge, as far as [`super::auth::realm`] has to know.
    pub(super) fn challenger<'o>(&self, origin: &'o Origin, password: bool) -> Challenger<'o> {
        let addresses = self.addresses(origin).unwrap_or_default();
        Challenger {
            origin,
            loopback: addresses.iter().any(|ip| is_loopback(*ip)),
            password,
        }
    }

    /// What a connection to an origin would be made to. Names behind a proxy are resolved there.
    fn addresses(&self, origin: &Origin) -> std::result::Result<Vec<IpAddr>, Failure> {
        match literal(&origin.host) {
            none if none.is_empty() => self.agent.addresses(origin),
            own => Ok(own),
        }
    }

    /// Looks at what a realm's name stands for: it may be an address of this machine. Connections
    /// go to the same addresses, since each name is looked up once.
    fn check_realm(
        &self,
        challenger: Challenger<'_>,
        realm: &Origin,
    ) -> std::result::Result<(), Failure> {
        Ok(challenger.check(realm, &self.addresses(realm)?)?)
    }

    fn take_token(
        &self,
        mut response: Response<'_>,
        url: &Url,
        source: Option<&String>,
    ) -> std::result::Result<Authorization, Failure> {
        let host = url.origin.to_string();
        match response.status() {
            200..=299 => {
                let what = format!("the token from {host}");
                let bytes = content_encoding::document(response, challenge::TOKEN_LIMIT, &what)?;
                Ok(challenge::read_token(&bytes, &host, source.cloned())?)
            }
            status => {
                let mut failure = error::failure(url, &mut response, false);
                failure.credentials = source.cloned();
                if (400..404).contains(&status) {
                    // Whatever the number, the endpoint has looked at who asks, and will not.
                    failure.status = if status == 403 { 403 } else { 401 };
                }
                Err(Failure::Status(Box::new(failure)))
            }
        }
    }
}
