//! The tests' registry: real sockets, real TLS, any image, and misbehaviour on command.
//!
//! It shares no code with the program: requests are read by hand, ranges cut by hand. Every
//! request is recorded with what was sent for it, so that a test can count.

pub mod fault;
pub mod image;
pub mod proxy;
mod reply;
mod request;
pub mod tls;

pub use fault::{Action, Fault};
pub use reply::{Content, Reply};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Which connection it came on.
    pub connection: u64,
    /// Bytes of the body that were sent for it.
    pub sent: u64,
    pub status: u16,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

type Route = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct State {
    contents: HashMap<String, (String, Content)>,
    tags: HashMap<String, Vec<String>>,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
}

struct Shared {
    state: Mutex<State>,
    /// Asked first, in order; the first answer counts.
    routes: Mutex<Vec<Route>>,
    stopped: AtomicBool,
    connections: AtomicU64,
    /// Requests that are being answered.
    active: AtomicUsize,
    pace: AtomicU64,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running registry; it ends when dropped, and fails the test if a fault was not used.
pub struct Registry {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    checked: bool,
}

pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(None, 0)
    }

    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::start_with(Some(config), 0)
    }

    pub fn start_with(tls: Option<Arc<rustls::ServerConfig>>, port: u16) -> Self {
        Self::start_on(TcpListener::bind(("127.0.0.1", port)).unwrap(), tls)
    }

    pub fn start_on(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            routes: Mutex::default(),
            stopped: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            pace: AtomicU64::new(0),
            tls,
        });
        let own = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if own.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(socket), own) = (socket, own.clone()) else {
                    continue;
                };
                let number = own.connections.fetch_add(1, Ordering::SeqCst);
                let builder = std::thread::Builder::new().stack_size(512 << 10);
                builder.spawn(move || own.serve(socket, number)).unwrap();
            }
        });
        Self {
            address,
            shared,
            checked: true,
        }
    }

    /// `127.0.0.1:PORT/REST`.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub fn fault(&self, path: &str, action: Action) -> &Self {
        self.faults(Fault::new(path, action))
    }

    pub fn faults(&self, fault: Fault) -> &Self {
        self.state().faults.push(fault);
        self
    }

    /// Not using a fault is no failure of this test.
    pub fn lenient(mut self) -> Self {
        self.checked = false;
        self
    }

    pub fn route(&self, route: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> &Self {
        self.shared.routes.lock().unwrap().push(Box::new(route));
        self
    }

    /// So many bytes a second on each connection, in small writes; 0 for as fast as it goes.
    pub fn pace(&self, rate: u64) -> &Self {
        self.shared.pace.store(rate, Ordering::SeqCst);
        self
    }

    pub fn put(&self, target: &str, media_type: &str, content: Content) {
        self.state()
            .contents
            .insert(target.to_owned(), (media_type.to_owned(), content));
    }

    pub fn put_tag(&self, repository: &str, tag: &str) {
        self.state()
            .tags
            .entry(repository.to_owned())
            .or_default()
            .push(tag.to_owned());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Behaves from now on.
    pub fn behave(&self) {
        self.state().faults.clear();
    }

    pub fn forget(&self) {
        self.state().seen.clear();
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.target.contains(path))
            .count()
    }

    /// Bytes of blobs that were sent.
    pub fn blob_bytes(&self) -> u64 {
        self.seen()
            .iter()
            .filter(|seen| seen.target.contains("/blobs/"))
            .map(|seen| seen.sent)
            .sum()
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if self.checked && !std::thread::panicking() {
            let left: Vec<_> = self
                .state()
                .faults
                .iter()
                .filter(|fault| fault.times > 0 && !fault.used)
                .map(|fault| fault.path.clone())
                .collect();
            assert!(left.is_empty(), "faults that never happened: {left:?}");
        }
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream, number: u64) {
        let _ = socket.set_nodelay(true);
        // Small, so that what a killed client was sent is about what it has read.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, 32 << 10);
        let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
        let Ok(mut raw) = socket.try_clone() else {
            return;
        };
        match &self.tls {
            None => self.talk(&mut raw, &socket, number),
            Some(config) => {
                let Ok(connection) = rustls::ServerConnection::new(config.clone()) else {
                    return;
                };
                let mut stream = rustls::StreamOwned::new(connection, raw);
                self.talk(&mut stream, &socket, number);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
    }

    fn talk(&self, stream: &mut dyn Stream, socket: &TcpStream, connection: u64) {
        let mut ahead = Vec::new();
        while let Some(mut seen) = request::read(stream, &mut ahead, connection) {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
            let actions = self.take_faults(&seen, active);
            let at = {
                let mut state = self.state.lock().unwrap();
                state.seen.push(seen.clone());
                state.seen.len() - 1
            };
            let routed = self
                .routes
                .lock()
                .unwrap()
                .iter()
                .find_map(|route| route(&seen));
            let reply = routed.unwrap_or_else(|| self.answer(&seen, &actions));
            seen.status = reply.status;
            let note = |sent: u64| {
                let mut state = self.state.lock().unwrap();
                if let Some(own) = state.seen.get_mut(at) {
                    own.sent = sent;
                    own.status = reply.status;
                }
            };
            let pace = self.pace.load(Ordering::SeqCst);
            let more = fault::send(stream, socket, &seen, &reply, &actions, pace, &note);
            self.active.fetch_sub(1, Ordering::SeqCst);
            if !more {
                return;
            }
        }
    }

    fn take_faults(&self, seen: &Seen, active: usize) -> Vec<Action> {
        let mut state = self.state.lock().unwrap();
        let mut actions = Vec::new();
        for fault in &mut state.faults {
            if fault.times == 0 || !fault.fits(seen, active) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            fault.used = true;
            actions.push(fault.action.clone());
        }
        actions
    }

    fn answer(&self, seen: &Seen, actions: &[Action]) -> Reply {
        if let Some(Action::Reply(reply)) = actions
            .iter()
            .find(|action| matches!(action, Action::Reply(_)))
        {
            return reply.clone();
        }
        let path = seen.target.split('?').next().unwrap();
        if path == "/v2/" {
            return Reply::new(200, "{}");
        }
        let state = self.state.lock().unwrap();
        if let Some(repository) = path
            .strip_prefix("/v2/")
            .and_then(|path| path.strip_suffix("/tags/list"))
        {
            let tags = state.tags.get(repository).map_or(&[][..], Vec::as_slice);
            return reply::tags(repository, tags, &seen.target);
        }
        let Some((media_type, content)) = state.contents.get(path) else {
            let code = if path.contains("/manifests/") {
                "MANIFEST_UNKNOWN"
            } else {
                "BLOB_UNKNOWN"
            };
            return Reply::new(
                404,
                format!(r#"{{"errors":[{{"code":"{code}","message":"not known here"}}]}}"#),
            );
        };
        let mut reply = Reply {
            status: 200,
            headers: vec![format!("Content-Type: {media_type}")],
            body: content.clone(),
        };
        if let (Content::Bytes(bytes), true) = (content, path.contains("/manifests/")) {
            let digest = image::sha256(bytes);
            reply
                .headers
                .push(format!("Docker-Content-Digest: {digest}"));
        }
        if let Some(range) = seen
            .header("range")
            .filter(|_| !actions.iter().any(|a| matches!(a, Action::NoRange)))
        {
            fault::cut_range(&mut reply, range);
        }
        reply
    }
}
