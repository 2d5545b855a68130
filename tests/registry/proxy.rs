//! A forward proxy of our own: CONNECT and absolute-form, with a password or a refusal.
//!
//! Whatever name is asked for, it is "resolved" to one address that the test gives: so a test can
//! use names that exist nowhere else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub struct Proxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

/// What it does to those who come.
#[derive(Clone, Copy)]
pub enum Manner {
    Open,
    /// Wants this `Proxy-Authorization`.
    Login(&'static str),
    /// Answers every CONNECT with this status.
    Refuse(u16),
}

impl Proxy {
    /// A proxy in front of one server.
    pub fn start(target: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || serve(socket, target, manner, &seen));
            }
        });
        Self { address, heads }
    }

    /// The heads of the requests it was sent.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Until there is nothing more to come.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A request as the origin is to see it: its own path, and nothing that was for the proxy.
fn passed_on(head: &str) -> Option<String> {
    let (first, rest) = head.split_once("\r\n")?;
    let (method, target) = first.split_once(" http://")?;
    let path = &target[target.find('/')?..];
    let rest: String = rest
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("Proxy-"))
        .collect();
    Some(format!("{method} {path}\r\n{rest}"))
}

fn serve(mut client: TcpStream, target: SocketAddr, manner: Manner, seen: &Mutex<Vec<String>>) {
    let mut server: Option<TcpStream> = None;
    while let Some(head) = head(&mut client) {
        seen.lock().unwrap().push(head.clone());
        let connect = head.starts_with("CONNECT ");
        let refusal = match manner {
            Manner::Login(login)
                if !head.contains(&format!("Proxy-Authorization: {login}\r\n")) =>
            {
                "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\""
            }
            Manner::Refuse(403) if connect => "403 Forbidden",
            Manner::Refuse(_) if connect => "502 Bad Gateway",
            _ => "",
        };
        if !refusal.is_empty() {
            let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 3\r\n\r\nno\n");
            let _ = client.write_all(answer.as_bytes());
            return;
        }
        let mut to = match server.take() {
            Some(server) => server,
            None => {
                let Ok(new) = TcpStream::connect(target) else {
                    return;
                };
                if connect {
                    let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                }
                let (back, forth) = (new.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || copy(back, forth));
                new
            }
        };
        if connect {
            return copy(client, to);
        }
        let Some(request) = passed_on(&head) else {
            return;
        };
        let _ = to.write_all(request.as_bytes());
        server = Some(to);
    }
}
