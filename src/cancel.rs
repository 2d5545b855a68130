//! Cancellation: what ends an operation from another thread, and what ends the waits of a pull's own
//! workers.

use crate::sync::lock;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Cancels whatever runs on the clients that were given it ([`crate::Client::cancelled_by`]), from
/// another thread. Clones of a token are the same token; what it has cancelled stays so.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<State>);

#[derive(Default)]
struct State {
    stop: Stop,
    /// Connections in use, of all clients that were given the token.
    users: Mutex<Vec<Weak<Sockets>>>,
}

impl CancelToken {
    /// A token that has cancelled nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all operations of the token at once, and each later one as it begins: they return
    /// [`crate::Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.stop.set();
        for sockets in lock(&self.0.users).iter().filter_map(Weak::upgrade) {
            sockets.shut_down();
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.stop.is_set()
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// A set of connections that the token ends.
    pub(crate) fn sockets(&self) -> Arc<Sockets> {
        let sockets = Arc::new(Sockets::default());
        let mut users = lock(&self.0.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(&sockets));
        sockets
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken")
            .field("is_cancelled", &self.is_cancelled())
            .finish()
    }
}

/// Connections in use.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<Vec<Weak<TcpStream>>>);

impl Sockets {
    pub fn add(&self, socket: &Arc<TcpStream>) {
        let mut sockets = lock(&self.0);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    /// The connection is free for others.
    pub fn remove(&self, socket: &Arc<TcpStream>) {
        let other = |known: &Weak<TcpStream>| known.as_ptr() != Arc::as_ptr(socket);
        lock(&self.0).retain(other);
    }

    /// Ends whatever waits on them.
    pub fn shut_down(&self) {
        for socket in lock(&self.0).drain(..).filter_map(|one| one.upgrade()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Ends every wait at once when a pull is stopped.
#[derive(Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub fn set(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }

    pub fn is_set(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Waits; `false` if it was stopped meanwhile.
    pub fn sleep(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        let mut stopped = lock(&self.stopped);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if *stopped || left.is_zero() {
                return !*stopped;
            }
            stopped = self
                .changed
                .wait_timeout(stopped, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
