//! The authorizations of a run, one for each origin and scope.

use super::challenge::Authorization;
use crate::net::url::Origin;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// An authorization that was accepted; `version` counts renewals.
struct Known {
    authorization: Authorization,
    version: u64,
}

/// Locked while its token is requested: others who need the same one wait for it.
type Slot = Arc<Mutex<Option<Known>>>;

/// Each origin and scope has a lock of its own, so that a slow token endpoint holds up nobody
/// else.
#[derive(Default)]
pub(in crate::registry) struct Tokens(Mutex<HashMap<(Origin, String), Slot>>);

impl Tokens {
    /// What was last accepted, while it is valid.
    pub fn current(&self, origin: &Origin, scope: &str) -> Option<(Authorization, u64)> {
        let key = (origin.clone(), scope.to_owned());
        let slot = lock(&self.0).get(&key).cloned()?;
        let known = lock(&slot);
        let known = known.as_ref()?;
        let current = known.authorization.is_current();
        current.then(|| (known.authorization.clone(), known.version))
    }

    /// The result of `request`, unless another thread already has a newer version than the one that
    /// was `used` and refused.
    pub fn renew<E>(
        &self,
        origin: &Origin,
        scope: &str,
        used: Option<u64>,
        request: impl FnOnce() -> Result<Authorization, E>,
    ) -> Result<(Authorization, u64), E> {
        let key = (origin.clone(), scope.to_owned());
        let slot = lock(&self.0).entry(key).or_default().clone();
        let mut slot = lock(&slot);
        let mut version = 0;
        if let Some(known) = &*slot {
            if used.is_none_or(|used| used < known.version) && known.authorization.is_current() {
                return Ok((known.authorization.clone(), known.version));
            }
            version = known.version + 1;
        }
        let authorization = request()?;
        *slot = Some(Known {
            authorization: authorization.clone(),
            version,
        });
        Ok((authorization, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn origin(host: &str) -> Origin {
        crate::net::url::Url::parse(host).unwrap().origin
    }

    fn token(name: &str) -> Authorization {
        Authorization::bearer(&crate::secret::Secret::new(name), None, None)
    }

    #[test]
    fn a_slow_token_endpoint_holds_up_nobody_else() {
        let tokens = Tokens::default();
        let (one, other) = (origin("https://one.test"), origin("https://other.test"));
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let (done, ends) = mpsc::channel();
        std::thread::scope(|scope| {
            let (tokens, one, other) = (&tokens, &one, &other);
            scope.spawn(move || {
                let renewed = tokens.renew(one, "pull", None, || {
                    begun.send(()).unwrap();
                    let _ = goes.recv();
                    Ok::<_, ()>(token("slow"))
                });
                assert!(renewed.is_ok());
            });
            begins.recv().unwrap();
            scope.spawn(move || {
                let renewed = tokens.renew(other, "pull", None, || Ok::<_, ()>(token("quick")));
                assert!(renewed.is_ok());
                // Another scope of the slow one, too.
                assert!(tokens.current(one, "another").is_none());
                assert!(tokens.current(other, "pull").is_some());
                done.send(()).unwrap();
            });
            let ended = ends.recv_timeout(Duration::from_secs(20));
            drop(go);
            assert!(ended.is_ok(), "waits for the other endpoint");
        });
    }

    #[test]
    fn one_thread_renews_and_the_others_take_what_it_got() {
        let tokens = Tokens::default();
        let one = origin("https://one.test");
        let get = |name: &str, used| {
            let renewed = tokens.renew(&one, "pull", used, || Ok::<_, ()>(token(name)));
            renewed.unwrap().1
        };
        assert_eq!(get("a", None), 0);
        assert_eq!(get("b", None), 0);
        assert_eq!(get("c", Some(0)), 1);
        assert_eq!(get("d", Some(0)), 1);
        assert_eq!(get("e", Some(1)), 2);
        let failed = tokens.renew(&one, "pull", Some(2), || Err("refused"));
        assert!(failed.is_err());
        assert_eq!(tokens.current(&one, "pull").unwrap().1, 2);
    }
}
