//! [`Low`] → [`Options`]: combinations are settled, the environment is read, passwords are asked
//! for. After this nothing about the command line can fail.

use super::flags::{Low, Mode, Query};
use super::prompt;
use crate::error::{Error, Result};
use crate::{Platform, Reference};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

pub(super) struct Options {
    pub references: Vec<Reference>,
    pub credentials: Option<Login>,
    pub target: PathBuf,
    pub platform: Option<Platform>,
    pub progress: Mode,
    pub low: Low,
}

pub(super) struct Login {
    pub user: String,
    pub password: String,
    pub source: &'static str,
}

impl Options {
    pub fn from_low(low: Low) -> Result<Self> {
        let wrong = |what: &str, why: &str| {
            Err(Error::Usage {
                what: what.to_owned(),
                why: why.to_owned(),
            })
        };
        if low.images.is_empty() {
            return wrong(
                "IMAGE",
                "an image's name is needed, such as debian; --help says more",
            );
        }
        let references: Vec<Reference> = low
            .images
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_>>()?;
        if low.output.is_some() && (low.tarname.is_some() || low.working_dir.is_some()) {
            return wrong(
                "--output",
                "is the whole path; leave --tarname and --working-dir out",
            );
        }
        if low.query.is_some() && references.len() > 1 {
            return wrong("IMAGE", "only one image can be asked about at a time");
        }
        if low.query == Some(Query::Tags) && low.platform.is_some() {
            return wrong(
                "--tags",
                "are the repository's, whatever the platform; leave --platform out",
            );
        }
        if low.cert.is_some() != low.key.is_some() {
            return wrong("--cert and --key", "need each other");
        }
        if low.insecure && (low.skip_verify || !low.cacert.is_empty() || low.cert.is_some()) {
            return wrong(
                "--insecure",
                "means plain HTTP, which has no certificates; leave --cacert, --cert and --tls-skip-verify out",
            );
        }
        if low.mirror_tags && low.mirrors.is_empty() {
            return wrong("--mirror-tags", "needs a --mirror");
        }
        if low.quiet && low.verbose {
            return wrong("--quiet and --verbose", "contradict each other");
        }
        let target = match &low.output {
            Some(path) => path.clone(),
            None => {
                let name = low
                    .tarname
                    .clone()
                    .unwrap_or_else(|| format!("{}.tar", references[0].archive_stem()).into());
                low.working_dir
                    .as_deref()
                    .unwrap_or(Path::new(""))
                    .join(name)
            }
        };
        let credentials = login(&low)?;
        let progress = match low.progress.unwrap_or(Mode::Auto) {
            _ if low.quiet => Mode::None,
            Mode::Auto
                if std::io::stderr().is_terminal()
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb") =>
            {
                Mode::Bar
            }
            Mode::Auto => Mode::Plain,
            other => other,
        };
        Ok(Self {
            references,
            credentials,
            target,
            platform: low.platform.clone(),
            progress,
            low,
        })
    }
}

fn login(low: &Low) -> Result<Option<Login>> {
    let wrong = |what: &str, why: &str| {
        Err(Error::Usage {
            what: what.to_owned(),
            why: why.to_owned(),
        })
    };
    let sources = [low.password.is_some(), low.password_stdin, low.ilogin];
    if sources.iter().filter(|given| **given).count() > 1 {
        return wrong(
            "--password, --password-stdin and --ilogin",
            "only one of them can be used",
        );
    }
    if low.ilogin {
        let (user, password) = prompt::login(low.user.clone())?;
        return Ok(Some(Login {
            user,
            password,
            source: "the terminal (--ilogin)",
        }));
    }
    let Some(user) = low.user.clone() else {
        return match sources.contains(&true) {
            true => wrong("--user", "is needed with a password"),
            false => Ok(None),
        };
    };
    if let Some(password) = low.password.clone() {
        return Ok(Some(Login {
            user,
            password,
            source: "the command line (--user, --password)",
        }));
    }
    if low.password_stdin {
        let failed = |error| {
            Error::input(
                Path::new("standard input"),
                "reading the password from",
                error,
            )
        };
        let bytes = prompt::line(&mut std::io::stdin().lock()).map_err(failed)?;
        let password = String::from_utf8(bytes).map_err(|_| {
            failed(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "it is not UTF-8",
            ))
        })?;
        return Ok(Some(Login {
            user,
            password,
            source: "standard input (--password-stdin)",
        }));
    }
    wrong("--user", "needs --password-stdin, --ilogin or --password")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::parse;

    fn options(args: &[&str]) -> Result<Options> {
        let args = std::iter::once("dockersave").chain(args.iter().copied());
        Options::from_low(parse(args.map(Into::into))?)
    }

    #[test]
    fn the_archives_place_follows_from_the_flags() {
        for (args, path) in [
            (&["debian"][..], "library-debian-latest.tar"),
            (&["ghcr.io/a/b:c"], "a-b-c.tar"),
            (
                &["debian", "--working-dir", "/tmp"],
                "/tmp/library-debian-latest.tar",
            ),
            (
                &["debian", "--tarname", "x.tar", "--working-dir", "d"],
                "d/x.tar",
            ),
            (&["debian", "-o", "y/z.tar"], "y/z.tar"),
        ] {
            assert_eq!(options(args).ok().unwrap().target, Path::new(path));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for args in [
            &[][..],
            &["debian", "-o", "x", "--tarname", "y"],
            &["a", "b", "--sha"],
            &["a", "--tags", "--arch", "arm"],
            &["a", "--cert", "c"],
            &["a", "--insecure", "--cacert", "c"],
            &["a", "-q", "-v"],
            &["a", "--mirror-tags"],
            &["a", "--password", "p"],
            &["a", "--user", "u"],
            &["a", "--user", "u", "--password", "p", "--password-stdin"],
        ] {
            assert_eq!(options(args).err().unwrap().status(), 2, "{args:?}");
        }
    }
}
