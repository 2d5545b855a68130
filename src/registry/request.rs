//! The flow of one request through challenges and redirects.
//!
//! This module decides who gets which credentials: the registry's authorization stays at its
//! origin, and a registry behind it gets at most an anonymous token.

use super::auth::challenge::{self, Authorization, Challenge, Plan};
use super::{Ask, Repository, error};
use crate::error::Error;
use crate::hint::Hint;
use crate::net::error::{Failure, StatusFailure};
use crate::net::url::Url;
use crate::net::{Request, Response};
use std::time::Instant;

/// The most redirects in a row.
const HOPS: usize = 10;

/// The state of one request.
pub(super) struct Exchange<'e, 'a> {
    repository: &'e Repository<'a>,
    ask: Ask<'e>,
    with_credentials: bool,
    url: Url,
    seen: Vec<Url>,
    /// A redirect led from plain HTTP to the same place with HTTPS.
    upgraded: bool,
    /// The authorization for its origin; `version` shows whether it is still the newest.
    own: Option<(Authorization, u64)>,
    /// An anonymous token for a redirect's target, for this request only.
    visiting: Option<(crate::net::url::Origin, Authorization)>,
    fresh: bool,
    widened: bool,
    /// The deadline for the whole request.
    deadline: Instant,
}

impl<'e, 'a> Exchange<'e, 'a> {
    pub fn new(
        repository: &'e Repository<'a>,
        start: &Url,
        ask: Ask<'e>,
        with_credentials: bool,
    ) -> Self {
        let own = if with_credentials {
            let origin = &repository.base.origin;
            repository.client.authorization(origin, &repository.scope)
        } else {
            None
        };
        Self {
            repository,
            ask,
            with_credentials,
            url: start.clone(),
            seen: Vec::new(),
            upgraded: false,
            own,
            visiting: None,
            fresh: false,
            widened: false,
            deadline: repository.client.agent().deadline(),
        }
    }

    fn at_registry(&self) -> bool {
        self.url.origin == self.repository.base.origin
    }

    /// The URL that answered.
    pub fn url(self) -> Url {
        self.url
    }

    pub fn once(&self) -> std::result::Result<Response<'a>, Failure> {
        let mut request = Request::get(&self.url);
        request.method = self.ask.method.unwrap_or("GET");
        request.deadline = Some(self.deadline);
        if self.ask.separate {
            for accept in self.ask.accept {
                request = request.field("Accept", accept);
            }
        } else {
            request = request.field("Accept", &self.ask.accept.join(", "));
        }
        if let Some((first, last)) = self.ask.range {
            request = request.field("Range", &format!("bytes={first}-{last}"));
        }
        let visiting = self
            .visiting
            .as_ref()
            .filter(|(origin, _)| *origin == self.url.origin)
            .map(|(_, own)| own);
        let own = self
            .own
            .as_ref()
            .filter(|_| self.at_registry())
            .map(|(own, _)| own);
        if let Some(authorization) = own.or(visiting) {
            request = request.field("Authorization", authorization.field.expose());
        }
        let response = self.repository.client.agent().send(&request)?;
        self.repository
            .client
            .note_answer(request.method, &self.url, self.ask.range, &response);
        Ok(response)
    }

    fn protocol(&self, why: String) -> Failure {
        Failure::Final(Error::malformed(
            format!("the redirect from {}", self.url.origin),
            why,
        ))
    }

    pub fn redirect(&mut self, response: Response<'_>) -> std::result::Result<(), Failure> {
        let Some(location) = response.field("location") else {
            return Err(self.protocol("has no Location".into()));
        };
        let next = self.url.join(location).map_err(|why| self.protocol(why))?;
        if self.url.origin.secure && !next.origin.secure {
            return Err(self.protocol(format!(
                "leads from https to plain http ({}), which is not followed",
                next.origin
            )));
        }
        response.body.drain();
        self.upgraded |=
            !self.url.origin.secure && next.origin.secure && next.target == self.url.target;
        self.seen.push(std::mem::replace(&mut self.url, next));
        if self.seen.len() > HOPS {
            return Err(self.protocol(format!("is one of more than {HOPS} in a row")));
        }
        if self.seen.contains(&self.url) {
            return Err(self.protocol("leads in a circle".into()));
        }
        Ok(())
    }

    /// Handles an error response: authenticates if that may help, or fails.
    pub fn recover(&mut self, mut response: Response<'_>) -> std::result::Result<(), Failure> {
        let status = response.status();
        let challenges = challenge::challenges(response.head.fields.all("www-authenticate"));
        let redirected = !self.at_registry();
        let own = !redirected && self.seen.is_empty() && self.with_credentials;
        let registry =
            response.field("docker-distribution-api-version").is_some() || !challenges.is_empty();
        let mut failure = error::failure(&self.url, &mut response, false);
        response.body.drain();
        failure.redirected = !own && !self.is_authority(&failure, registry);
        failure.credentials = self
            .own
            .as_ref()
            .filter(|_| !redirected)
            .and_then(|(own, _)| Some(own.whose.as_ref()?.refused(status, own.issued)));
        let failure = Failure::Status(Box::new(failure));
        if !self.with_credentials {
            return Err(failure);
        }
        match status {
            401 if redirected => self.visit(&challenges, failure),
            401 => self.authenticate(challenges, failure),
            // Private repositories may deny their existence without credentials.
            403 | 404
                if !redirected && self.own.is_none() && self.repository.credential().is_some() =>
            {
                let challenges = self.probe()?;
                self.authenticate(challenges, failure)
            }
            _ => Err(failure),
        }
    }

    /// Behind a redirect: whether a registry says this, or a store whose signed URL has expired.
    fn is_authority(&self, failure: &StatusFailure, registry: bool) -> bool {
        // Stores have codes, too, such as `AccessDenied`.
        let own = |code: &String| code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
        let spoken = registry || !failure.codes.is_empty() && failure.codes.iter().all(own);
        self.with_credentials
            && match self.ask.blob {
                true => spoken && !self.url.target.contains('?'),
                false => spoken || self.at_registry(),
            }
    }

    /// A failure behind a redirect to HTTPS would not have happened without --insecure.
    pub fn explain(&self, mut failure: Failure) -> Failure {
        match &mut failure {
            _ if !self.upgraded => failure,
            Failure::Status(status) if matches!(status.status, 401 | 403) => {
                let comma = if status.message.is_empty() { "" } else { "; " };
                status.message.push_str(comma);
                status.message.push_str("it redirects to HTTPS");
                status.hint = Some(Hint::Https);
                status.redirected = false;
                failure
            }
            Failure::Status(_) | Failure::Final(_) => failure,
            _ => {
                let from = self.seen.first().unwrap_or(&self.url);
                let why = format!("leads to HTTPS ({failure})");
                let what = format!("the redirect from {}", from.origin);
                Failure::Final(Error::malformed(what, why).with_hint(Hint::Https))
            }
        }
    }

    /// The challenge of `/v2/`, for registries that send none elsewhere.
    fn probe(&self) -> std::result::Result<Vec<Challenge>, Failure> {
        let url = Url {
            origin: self.repository.base.origin.clone(),
            target: "/v2/".into(),
        };
        let response = self.repository.client.agent().send(&Request::get(&url))?;
        self.repository
            .client
            .note_answer("GET", &url, None, &response);
        let challenges = challenge::challenges(response.head.fields.all("www-authenticate"));
        response.body.drain();
        Ok(challenges)
    }

    fn authenticate(
        &mut self,
        mut challenges: Vec<Challenge>,
        failure: Failure,
    ) -> std::result::Result<(), Failure> {
        let wider = challenges.iter().any(|c| {
            c.get("error") == Some("insufficient_scope") && c.get("scope").is_some()
                || challenge::names_others(c, &self.repository.scope)
        });
        // A second 401 is final, unless there is a scope that was not requested yet.
        if self.fresh && (self.widened || !wider) {
            return Err(failure);
        }
        self.widened |= self.fresh && wider;
        let own_challenge = !challenges.is_empty();
        if challenges.is_empty() {
            challenges = self.probe()?;
        }
        let repository = self.repository;
        let credential = repository.credential();
        let challenger = repository
            .client
            .challenger(&repository.base.origin, credential.is_some());
        let Some(plan) =
            challenge::choose(&challenges, challenger, &repository.scope, self.widened)?
        else {
            return Err(failure);
        };
        let version = self.own.as_ref().map(|(_, version)| *version);
        let authenticate = |plan| {
            let credential = credential.clone();
            let client = repository.client;
            client.authenticate(challenger, &repository.scope, plan, credential, version)
        };
        self.own = Some(match authenticate(plan) {
            // A registry under another name knows the repository only by its own name.
            Err(Failure::Status(_)) if wider && own_challenge && !self.widened => {
                self.widened = true;
                match challenge::choose(&challenges, challenger, &repository.scope, true)? {
                    Some(plan) => authenticate(plan)?,
                    None => return Err(failure),
                }
            }
            other => other?,
        });
        self.fresh = true;
        Ok(())
    }

    /// A registry behind the registry (a vanity name) requires its own token: an anonymous one, for
    /// this request only. It gets no credentials.
    fn visit(
        &mut self,
        challenges: &[Challenge],
        failure: Failure,
    ) -> std::result::Result<(), Failure> {
        if self
            .visiting
            .as_ref()
            .is_some_and(|(origin, _)| *origin == self.url.origin)
        {
            return Err(failure);
        }
        let client = self.repository.client;
        let challenger = client.challenger(&self.url.origin, false);
        match challenge::choose(challenges, challenger, "", false) {
            Ok(Some(Plan::Bearer {
                realm,
                service,
                scopes,
            })) => {
                let token = client.token(challenger, &realm, &service, &scopes, None)?;
                self.visiting = Some((self.url.origin.clone(), token));
                Ok(())
            }
            _ => Err(failure),
        }
    }
}
