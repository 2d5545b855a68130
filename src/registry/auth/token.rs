//! The token protocol: answers a challenge with a credential, or with a token from the realm that
//! the challenge names (distribution-spec, `auth/token.md` and `auth/oauth.md`).

use super::challenge::{self, Authorization, Plan};
use super::credentials::{Credential, Found, Whose};
use super::realm::{Challenger, is_loopback, literal};
use crate::error::Error;
use crate::hint::Hint;
use crate::net::error::{Attempt, Failure};
use crate::net::url::{Origin, Url};
use crate::net::{Request, Response};
use crate::registry::{Client, content_encoding, error};
use std::net::IpAddr;

impl Client {
    /// The last accepted authorization for this origin and scope, while it is valid.
    pub(in crate::registry) fn authorization(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Option<(Authorization, u64)> {
        self.tokens().current(origin, scope)
    }

    /// Answers a challenge. Of several threads that were refused with the same token, one renews it
    /// and the others use the new one: `used` is the refused version.
    pub(in crate::registry) fn authenticate(
        &self,
        challenger: Challenger<'_>,
        scope: &str,
        plan: Plan,
        credential: Option<Found>,
        used: Option<u64>,
    ) -> Attempt<(Authorization, u64)> {
        let origin = challenger.origin;
        self.tokens().renew(origin, scope, used, || {
            if let Some(found) = &credential {
                self.note(&format!("credentials for {origin} from {}", found.source));
            }
            let found = credential.as_ref();
            match (plan, found.map(|found| (&found.credential, found.whose()))) {
                (_, Some((Credential::RegistryToken(token), whose))) => {
                    Ok(Authorization::bearer(token, None, Some(whose)))
                }
                (Plan::Basic, Some((Credential::Password { user, password }, whose))) => {
                    Ok(Authorization::basic(user, password.expose(), whose))
                }
                (Plan::Basic, _) => Err(Failure::Final(Error::Refused {
                    host: origin.to_string(),
                    status: 401,
                    detail: "it requires a user and password".into(),
                    hint: Some(Hint::Credentials),
                })),
                (
                    Plan::Bearer {
                        realm,
                        service,
                        scopes,
                    },
                    _,
                ) => self.token(challenger, &realm, &service, &scopes, found),
            }
        })
    }

    /// Fetches a token from a realm: by POST with an identity token, by GET otherwise.
    pub(in crate::registry) fn token(
        &self,
        challenger: Challenger<'_>,
        realm: &Url,
        service: &str,
        scopes: &[String],
        credential: Option<&Found>,
    ) -> Attempt<Authorization> {
        let whose = credential.map(Found::whose);
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
        let deadline = Some(self.agent().deadline());
        // A realm may redirect. Credentials follow only within its origin, or to https on its host;
        // an anonymous request may go anywhere.
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
            let response = self.agent().send(&request)?;
            self.note_answer(request.method, &url, None, &response);
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return match self.take_token(response, &url, whose) {
                    // GCR, ACR and Artifactory do not support the form, each with its own status.
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
            "redirects too often, or to another host, which must not get credentials",
        )))
    }

    /// Whoever sent a challenge, as far as [`super::realm`] has to know.
    pub(in crate::registry) fn challenger<'o>(
        &self,
        origin: &'o Origin,
        password: bool,
    ) -> Challenger<'o> {
        let addresses = self.addresses(origin).unwrap_or_default();
        Challenger {
            origin,
            loopback: addresses.iter().any(|ip| is_loopback(*ip)),
            password,
        }
    }

    /// The addresses that a connection to an origin would use. Names behind a proxy are resolved
    /// there.
    fn addresses(&self, origin: &Origin) -> Attempt<Vec<IpAddr>> {
        match literal(&origin.host) {
            none if none.is_empty() => self.agent().addresses(origin),
            own => Ok(own),
        }
    }

    /// Checks the addresses of a realm's name: it may be an address of this machine. Connections
    /// use the same addresses, since each name is looked up once.
    fn check_realm(&self, challenger: Challenger<'_>, realm: &Origin) -> Attempt<()> {
        Ok(challenger.check(realm, &self.addresses(realm)?)?)
    }

    fn take_token(
        &self,
        mut response: Response<'_>,
        url: &Url,
        whose: Option<Whose>,
    ) -> Attempt<Authorization> {
        let host = url.origin.to_string();
        match response.status() {
            200..=299 => {
                let what = format!("the token from {host}");
                let bytes = content_encoding::document(response, challenge::TOKEN_LIMIT, &what)?;
                Ok(challenge::read_token(&bytes, &host, whose)?)
            }
            status => {
                let mut failure = error::failure(url, &mut response, false);
                if (400..404).contains(&status) {
                    // Whatever the status, the endpoint knows who asks, and refuses.
                    failure.status = if status == 403 { 403 } else { 401 };
                }
                failure.credentials = whose.map(|whose| whose.refused(failure.status, false));
                Err(Failure::Status(Box::new(failure)))
            }
        }
    }
}
