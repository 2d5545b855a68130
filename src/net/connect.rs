//! Name resolution and connecting: addresses are looked up once per run, and all of them are tried.
//!
//! A dead address costs a quarter of a second: the next one is tried in parallel (RFC 8305).
//! `localhost` needs no name server.

use super::error::Failure;
use super::url::Origin;
use crate::error::plain;
use crate::sync::lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long to wait for one address before the next is tried in parallel.
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses found so far, by name; the one that worked last comes first.
#[derive(Default)]
pub(crate) struct Resolver {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// Where a connection was taken.
    reached: Mutex<Vec<Origin>>,
}

impl Resolver {
    /// A connected socket to one of the host's addresses.
    pub fn connect(&self, origin: &Origin, timeout: Duration) -> Result<TcpStream, Failure> {
        let addresses = self.addresses(&origin.host)?;
        let sockets: Vec<SocketAddr> = addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, origin.port))
            .collect();
        let raced = race(&sockets, timeout);
        let mut reached = lock(&self.reached);
        let known = reached.contains(origin);
        let (stream, winner) = raced.map_err(|why| Failure::Connect {
            origin: origin.clone(),
            why: explain(&why, origin),
            refused: !known && why.kind() == io::ErrorKind::ConnectionRefused,
        })?;
        if !known {
            reached.push(origin.clone());
        }
        drop(reached);
        if winner.ip() != addresses[0] {
            let mut known = lock(&self.known);
            if let Some(list) = known.get_mut(&origin.host) {
                list.retain(|ip| *ip != winner.ip());
                list.insert(0, winner.ip());
            }
        }
        // Requests are single small segments; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The addresses of a name. The first answer is kept, so that it cannot change between a check
    /// and the connection.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        // musl knows localhost only from /etc/hosts, which a FROM-scratch container does not have.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Some(list) = lock(&self.known).get(host) {
            return Ok(list.clone());
        }
        let found = (host, 0)
            .to_socket_addrs()
            .map_err(|error| unresolved(host, &error))?;
        let list = interleave(found.map(|address| address.ip()).collect());
        if list.is_empty() {
            return Err(Failure::Resolve {
                host: host.to_owned(),
                again: false,
                why: "the name server returned none".into(),
            });
        }
        let mut known = lock(&self.known);
        Ok(known.entry(host.to_owned()).or_insert(list).clone())
    }
}

/// std hides the resolver's error code; only its text distinguishes "try again" from "no such
/// name".
fn unresolved(host: &str, error: &io::Error) -> Failure {
    let text = plain(error);
    let text = text.rsplit(": ").next().unwrap_or("").to_owned();
    let again = text.contains("Try again") || text.contains("Temporary failure");
    let hint = if std::path::Path::new("/etc/resolv.conf").exists() {
        ""
    } else {
        "; there is no /etc/resolv.conf that names a name server"
    };
    Failure::Resolve {
        host: host.to_owned(),
        again: again && hint.is_empty(),
        why: format!("{text}{hint}"),
    }
}

/// Alternates the families, so that an unreachable one delays only every second attempt.
fn interleave(mut list: Vec<IpAddr>) -> Vec<IpAddr> {
    list.dedup();
    let first_is_v6 = list.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        list.into_iter().partition(|ip| ip.is_ipv6() == first_is_v6);
    let mut out = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return out,
            (a, b) => out.extend(a.into_iter().chain(b)),
        }
    }
}

fn explain(error: &io::Error, origin: &Origin) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens on port {}", origin.port)
        }
        _ => plain(error),
    }
}

/// Tries the addresses one after the other, [`STAGGER`] apart, and returns the first connection.
fn race(addresses: &[SocketAddr], timeout: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let end = Instant::now() + timeout;
    let mut waiting: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    let mut rest = addresses.iter();
    let mut last = io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {} s", timeout.as_secs()),
    );
    let mut next_start = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", timeout.as_secs()),
            ));
        }
        if waiting.is_empty() || now >= next_start {
            match rest.next() {
                Some(address) => match start(*address) {
                    Ok(socket) => {
                        waiting.push((socket, *address));
                        next_start = now + STAGGER;
                    }
                    Err(error) => {
                        last = worse(last, error);
                        continue;
                    }
                },
                None if waiting.is_empty() => return Err(last),
                None => next_start = end,
            }
        }
        match ready(&waiting, next_start.min(end) - now.min(next_start.min(end)))? {
            None => {}
            Some(index) => {
                let (socket, address) = waiting.swap_remove(index);
                match sockopt::socket_error(&socket)? {
                    Ok(()) => {
                        let stream = TcpStream::from(socket);
                        stream.set_nonblocking(false)?;
                        return Ok((stream, address));
                    }
                    Err(error) => {
                        last = worse(last, error.into());
                        next_start = Instant::now();
                    }
                }
            }
        }
    }
}

/// The failure to report of two: if one address refuses, others may have no route.
fn worse(last: io::Error, next: io::Error) -> io::Error {
    match last.kind() {
        io::ErrorKind::ConnectionRefused => last,
        _ => next,
    }
}

fn start(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The index of a socket whose connect has finished, within `wait`.
fn ready(waiting: &[(OwnedFd, SocketAddr)], wait: Duration) -> io::Result<Option<usize>> {
    let mut polled: Vec<PollFd<'_>> = waiting
        .iter()
        .map(|(socket, _)| PollFd::new(socket, PollFlags::OUT))
        .collect();
    let wait = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(60),
        // Less than 10^9, so it fits in 32 bits.
        tv_nsec: wait.subsec_nanos() as _,
    };
    match poll(&mut polled, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().position(|fd| !fd.revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list = ["::1", "::2", "::3", "1.1.1.1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let expected: Vec<IpAddr> = ["::1", "1.1.1.1", "::2", "::3"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        assert_eq!(interleave(list), expected);
    }

    #[test]
    fn a_dead_address_is_passed_over() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        // Nothing listens on port 1, and 192.0.2.0/24 is for documentation only.
        let dead = [
            "127.0.0.1:1".parse().unwrap(),
            "192.0.2.1:9".parse().unwrap(),
            alive,
        ];
        let (_, winner) = race(&dead, Duration::from_secs(5)).unwrap();
        assert_eq!(winner, alive);
        assert!(race(&dead[..1], Duration::from_secs(1)).is_err());
    }
}
