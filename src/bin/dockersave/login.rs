//! Users and passwords from the command line, each for one registry or mirror.

use super::error::{Error, Result};
use super::flags::Low;
use super::prompt;
use dockersave::{Reference, same_registry};
use std::path::Path;

pub(super) struct Login {
    /// The registry or mirror that it is for.
    pub host: String,
    pub user: String,
    pub password: String,
    pub source: &'static str,
}

/// Prompts for what is missing.
pub(super) fn logins(low: &Low, images: &[Reference]) -> Result<Vec<Login>> {
    let wrong = |what: &str, why: &str| Err(Error::usage(what, why));
    let sources = [low.password.is_some(), low.password_stdin, low.ilogin];
    if sources.iter().filter(|given| **given).count() > 1 {
        return wrong(
            "--password, --password-stdin and --ilogin",
            "only one of them can be used",
        );
    }
    let several = low.users.len() > 1;
    if several && low.password.is_some() {
        return wrong(
            "--password",
            "is for one --user; use --password-stdin, with a line for each, or --ilogin",
        );
    }
    if low.ilogin && low.users.is_empty() {
        let host = only(low, images)?;
        let (user, password) = prompt::login(None, None)?;
        let source = "the terminal (--ilogin)";
        return Ok(vec![Login {
            host,
            user,
            password,
            source,
        }]);
    }
    if low.users.is_empty() && sources.contains(&true) {
        return wrong("--user", "is required with a password");
    }
    let mut hosts = Vec::new();
    for (host, _) in &low.users {
        hosts.push(match host {
            Some(host) if !is_named(host, low, images) => {
                let why = format!("{host} is not a registry or mirror on this command line");
                return wrong("--user", &why);
            }
            Some(host) => host.clone(),
            None => only(low, images)?,
        });
    }
    let users = hosts.into_iter().zip(&low.users);
    users
        .map(|(host, (_, user))| {
            let (password, source) = password(low, &host, user, several)?;
            let user = user.clone();
            Ok(Login {
                host,
                user,
                password,
                source,
            })
        })
        .collect()
}

/// One user's password, and where it came from.
fn password(low: &Low, host: &str, user: &str, several: bool) -> Result<(String, &'static str)> {
    if low.ilogin {
        let whose = several.then(|| format!("{user} at {host}"));
        let (_, password) = prompt::login(Some(user.to_owned()), whose.as_deref())?;
        return Ok((password, "the terminal (--ilogin)"));
    }
    if let Some(password) = low.password.clone() {
        return Ok((password, "the command line (--user, --password)"));
    }
    if !low.password_stdin {
        let why = "requires --password-stdin, --ilogin or --password";
        return Err(Error::usage("--user", why));
    }
    let failed = |error| {
        let place = Path::new("standard input");
        Error::input(place, "reading the password from", error)
    };
    let bytes = prompt::line(&mut std::io::stdin().lock()).map_err(failed)?;
    if several && bytes.is_empty() {
        let why = "reads one line for each --user, but there are fewer";
        return Err(Error::usage("--password-stdin", why));
    }
    let password = String::from_utf8(bytes).map_err(|_| {
        let kind = std::io::ErrorKind::InvalidData;
        failed(std::io::Error::new(kind, "it is not UTF-8"))
    })?;
    Ok((password, "standard input (--password-stdin)"))
}

/// A reference at this registry, to compare with others.
fn at(host: &str) -> Option<Reference> {
    format!("{host}/x").parse().ok()
}

fn is_named(host: &str, low: &Low, images: &[Reference]) -> bool {
    let own = |mirror: &String| {
        let bare = mirror.split_once("://").map_or(&**mirror, |(_, bare)| bare);
        bare.split(['/', '?']).next() == Some(host)
    };
    let registry = at(host);
    let mut images = images.iter();
    low.mirrors.iter().any(own)
        || registry.is_some_and(|registry| images.any(|image| same_registry(&registry, image)))
}

/// The only registry without a user of its own.
fn only(low: &Low, images: &[Reference]) -> Result<String> {
    let what = if low.ilogin { "--ilogin" } else { "--user" };
    let hosts = low
        .users
        .iter()
        .filter_map(|(host, _)| at(host.as_deref()?));
    let hosts: Vec<Reference> = hosts.collect();
    let free = |image: &&Reference| !hosts.iter().any(|host| same_registry(host, image));
    let mut rest = images.iter().filter(free);
    let Some(first) = rest.next() else {
        let why = "has no registry: each has a user of its own";
        return Err(Error::usage(what, why));
    };
    match rest.find(|other| !same_registry(first, other)) {
        None => Ok(first.domain().to_owned()),
        Some(other) => {
            let why = format!(
                "is for one registry, but {} and {} are two; use --user HOST=NAME, or --authfile for several",
                first.domain(),
                other.domain()
            );
            Err(Error::usage(what, why))
        }
    }
}
