//! [`Low`] → [`Options`]: checks combinations, reads the environment, prompts for passwords. After
//! this nothing about the command line can fail.

use super::error::{Error, Result};
use super::flags::{Low, Mode, Query};
use super::output::{Outlet, with_suffix};
use super::prompt;
use dockersave::{Base, Format, Plan, Platform, Reference, same_registry};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

pub(super) struct Options {
    pub references: Vec<Reference>,
    pub credentials: Option<Login>,
    pub target: Target,
    /// What the target has already.
    pub base: Option<Base>,
    pub platform: Option<Platform>,
    pub progress: Mode,
    pub low: Low,
}

/// Where the image goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An archive, and a directory beside it.
    File(PathBuf, Option<PathBuf>),
    Directory(PathBuf),
    /// Not a regular file; with the given path.
    Stream(Outlet, PathBuf),
    Stdout,
}

impl Target {
    /// The output, beside which a partial one grows.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) | Self::Directory(path) => Some(path),
            Self::Stream(..) | Self::Stdout => None,
        }
    }

    /// Whether the archive is written in order, without a partial file.
    pub fn is_stream(&self) -> bool {
        self.path().is_none()
    }
}

impl Options {
    /// The path beside which the partial output grows: the archive or directory, or the file that
    /// layers are pulled to before they are inflated into a directory.
    pub fn partial(&self) -> Option<PathBuf> {
        match &self.target {
            Target::Directory(path) if self.low.gunzip => Some(with_suffix(path, ".tar")),
            target => target.path().map(Path::to_owned),
        }
    }
}

pub(super) struct Login {
    pub user: String,
    pub password: String,
    pub source: &'static str,
}

impl Options {
    pub fn from_low(low: Low) -> Result<Self> {
        let wrong = |what: &str, why: &str| Err(Error::usage(what, why));
        if low.images.is_empty() {
            return wrong(
                "IMAGE",
                "an image name is required, such as debian; see --help",
            );
        }
        let references: Vec<Reference> = low
            .images
            .iter()
            .map(|name| name.parse())
            .collect::<dockersave::Result<_>>()?;
        if low.output.is_some() && (low.tarname.is_some() || low.working_dir.is_some()) {
            return wrong(
                "--output",
                "is the whole path; omit --tarname and --working-dir",
            );
        }
        if low.query.is_some_and(|query| query != Query::DryRun) && references.len() > 1 {
            return wrong("IMAGE", "only one image can be queried at a time");
        }
        if low.query == Some(Query::Tags) && low.platform.is_some() {
            return wrong(
                "--tags",
                "belong to the repository, not to a platform; omit --platform",
            );
        }
        if low.query == Some(Query::Platforms) && low.platform.is_some() {
            return wrong("--platforms", "lists all of them; omit --platform");
        }
        if low.cert.is_some() != low.key.is_some() {
            return wrong("--cert and --key", "must be given together");
        }
        if low.insecure && (low.skip_verify || !low.cacert.is_empty() || low.cert.is_some()) {
            return wrong(
                "--insecure",
                "means plain HTTP, which has no certificates; omit --cacert, --cert and --tls-skip-verify",
            );
        }
        if low.mirror_tags && low.mirrors.is_empty() {
            return wrong("--mirror-tags", "requires --mirror");
        }
        if low.quiet && low.verbose {
            return wrong("--quiet and --verbose", "contradict each other");
        }
        if low.query == Some(Query::Referrers) && low.all_platforms {
            return wrong(
                "--referrers",
                "are those of one manifest; leave --all-platforms out",
            );
        }
        let plain = target(&low, &references[0], None);
        refuse_contradictions(&low, &plain)?;
        let base = match low.base.is_empty() {
            true => None,
            false => Some(Base::open(&low.base)?.any(low.base_any)),
        };
        let target = match &base {
            Some(_) => target(&low, &references[0], base.as_ref()),
            None => plain,
        };
        let domain = references[0].domain();
        let other = references
            .iter()
            .find(|one| !same_registry(&references[0], one));
        if let Some(other) = other
            && (low.user.is_some() || low.ilogin)
        {
            let why = format!(
                "is for one registry, but {domain} and {} are two; use --authfile for several",
                other.domain()
            );
            return wrong(if low.ilogin { "--ilogin" } else { "--user" }, &why);
        }
        let credentials = login(&low)?;
        Ok(Self {
            references,
            credentials,
            target,
            base,
            platform: low.platform.clone(),
            progress: progress(&low),
            low,
        })
    }

    /// Where nothing can be left out, the archive is the full one, and is called so.
    pub fn name_after(&mut self, plan: &Plan) {
        if self.base.is_some() && plan.missing().is_empty() {
            self.target = target(&self.low, &self.references[0], None);
        }
    }
}

/// How progress is shown where that was not said.
pub(super) fn progress(low: &Low) -> Mode {
    match low.progress.unwrap_or(Mode::Auto) {
        _ if low.quiet => Mode::None,
        Mode::Auto
            if std::io::stderr().is_terminal()
                && std::env::var_os("TERM")
                    .is_some_and(|term| !term.is_empty() && term != "dumb") =>
        {
            Mode::Bar
        }
        Mode::Auto => Mode::Plain,
        other => other,
    }
}

/// Refuses combinations that would be silently ignored or contradict each other.
fn refuse_contradictions(low: &Low, target: &Target) -> Result<()> {
    let (stream, stdout) = (target.is_stream(), *target == Target::Stdout);
    let rules = [
        (
            low.output.is_some() && low.no_tar,
            "--output",
            "is the archive's path, but --no-tar makes no archive; name the directory with --layers-dir",
        ),
        (
            stream && low.no_rm,
            "--no-rm",
            "leaves a directory beside the archive, but there is no archive file; use --no-tar",
        ),
        (
            stdout && low.json && low.query.is_none(),
            "--json",
            "prints to standard output, where --output - writes the archive",
        ),
        (
            stream && low.restart,
            "--restart",
            "discards a partial download, but a stream has none",
        ),
        (
            low.all_platforms && low.platform.is_some(),
            "--all-platforms",
            "pulls all of them; omit --platform and --arch",
        ),
        (
            low.all_platforms && low.format == Some(Format::Docker),
            "--format docker",
            "cannot hold several platforms; --all-platforms makes format oci",
        ),
        (
            low.all_platforms && low.gunzip,
            "--gunzip",
            "changes the manifests, but --all-platforms keeps the index that names them",
        ),
        (
            low.gunzip && (low.keep_signatures || low.keep_referrers.is_some()),
            "--gunzip",
            "makes another manifest, which no signature or referrer is of; leave --keep-signatures and --keep-referrers out",
        ),
        (
            low.query.is_some_and(|query| query != Query::DryRun)
                && (!low.signed_by.is_empty()
                    || low.policy.is_some()
                    || low.keep_signatures
                    || low.keep_referrers.is_some()),
            "--signed-by, --policy, --keep-signatures and --keep-referrers",
            "are for pulls and --dry-run",
        ),
        (
            low.inflate_limit.is_some() && !low.gunzip,
            "--inflate-limit",
            "requires --gunzip",
        ),
        (
            low.base_any && low.base.is_empty(),
            "--base-any",
            "is for --base",
        ),
        (
            low.inflate_memory.is_some(),
            "--inflate-memory",
            "requires --verify",
        ),
    ];
    match rules.into_iter().find(|(broken, ..)| *broken) {
        Some((_, what, why)) => Err(Error::usage(what, why)),
        None => Ok(()),
    }
}

fn target(low: &Low, first: &Reference, base: Option<&Base>) -> Target {
    let folder = low.working_dir.as_deref().unwrap_or(Path::new(""));
    let archive = match (&low.output, &low.tarname) {
        (Some(path), _) if path == Path::new("-") => return Target::Stdout,
        (Some(path), _) => path.clone(),
        (None, Some(name)) => folder.join(name),
        (None, None) => {
            let extension = if low.xz { "tar.xz" } else { "tar" };
            let from = base.map_or(String::new(), |base| {
                format!("-from-{}", &base.digest().hex()[..12])
            });
            folder.join(format!("{}{from}.{extension}", first.archive_stem()))
        }
    };
    if !low.no_tar {
        match Outlet::of(&archive) {
            Some(Outlet::Descriptor(1)) => return Target::Stdout,
            Some(outlet) => return Target::Stream(outlet, archive),
            None => {}
        }
    }
    let directory = || match &low.layers_dir {
        // Without a trailing slash, which would follow a link.
        Some(name) => folder.join(name).components().collect(),
        None => without_extension(&archive),
    };
    match (low.no_tar, low.no_rm) {
        (true, _) => Target::Directory(directory()),
        (false, true) => {
            let directory = directory();
            Target::File(archive, Some(directory))
        }
        (false, false) => Target::File(archive, None),
    }
}

/// The archive's name without its extension; never the archive's own name.
fn without_extension(archive: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = archive.as_os_str().as_bytes();
    let bare = [".tar", ".tar.xz", ".tar.zst"]
        .iter()
        .find_map(|extension| bytes.strip_suffix(extension.as_bytes()))
        .filter(|bare| !bare.is_empty() && !bare.ends_with(b"/"));
    match bare {
        Some(bare) => std::ffi::OsString::from_vec(bare.to_vec()).into(),
        None => with_suffix(archive, ".layers"),
    }
}

/// Checking an archive is not a pull: flags of a pull are refused.
pub(super) fn check_verify(low: &Low) -> Result<()> {
    let wrong = |why: &str| Err(Error::usage("--verify", why));
    if !low.images.is_empty() {
        return wrong("takes one archive, and no IMAGE");
    }
    let taken = Low {
        verify: low.verify.clone(),
        base: low.base.clone(),
        inflate_memory: low.inflate_memory,
        signed_by: low.signed_by.clone(),
        quiet: low.quiet,
        json: low.json,
        verbose: low.verbose,
        progress: low.progress,
        ..Low::default()
    };
    if *low != taken {
        return wrong(
            "checks an existing archive and pulls nothing; use it only with --base, --signed-by, --inflate-memory, --json, --quiet, --verbose and --progress",
        );
    }
    Ok(())
}

/// Joining archives is no pull, either. Says where the full one goes.
pub(super) fn check_join(low: &Low, thin: &Path) -> Result<Target> {
    let wrong = |why: &str| Err(Error::usage("--join", why));
    if !low.images.is_empty() {
        return wrong("takes one archive, and no IMAGE");
    }
    let taken = Low {
        join: low.join.clone(),
        base: low.base.clone(),
        output: low.output.clone(),
        restart: low.restart,
        jobs: low.jobs,
        timeout: low.timeout,
        quiet: low.quiet,
        json: low.json,
        verbose: low.verbose,
        progress: low.progress,
        ..Low::default()
    };
    if *low != taken {
        return wrong(
            "takes what is here, and pulls nothing; leave all flags but --base, --output, --restart, --json, --quiet, --verbose and --progress out",
        );
    }
    let path = low.output.clone().or_else(|| full_name(thin));
    let Some(path) = path else {
        return wrong("needs --output: its name does not say what the full archive's is");
    };
    let target = match Outlet::of(&path) {
        _ if path == Path::new("-") => Target::Stdout,
        Some(Outlet::Descriptor(1)) => Target::Stdout,
        Some(outlet) => Target::Stream(outlet, path),
        None => Target::File(path, None),
    };
    refuse_contradictions(low, &target)?;
    Ok(target)
}

/// The default name of a thin archive without what makes it one.
fn full_name(thin: &Path) -> Option<PathBuf> {
    let name = thin.file_name()?.to_str()?;
    let (stem, rest) = name.rsplit_once("-from-")?;
    let (hex, extension) = rest.split_at_checked(12)?;
    let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits && extension == ".tar").then(|| thin.with_file_name(format!("{stem}{extension}")))
}

fn login(low: &Low) -> Result<Option<Login>> {
    let wrong = |what: &str, why: &str| Err(Error::usage(what, why));
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
            password,
            user,
            source: "the terminal (--ilogin)",
        }));
    }
    let Some(user) = low.user.clone() else {
        return match sources.contains(&true) {
            true => wrong("--user", "is required with a password"),
            false => Ok(None),
        };
    };
    if let Some(password) = low.password.clone() {
        return Ok(Some(Login {
            password,
            user,
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
            password,
            user,
            source: "standard input (--password-stdin)",
        }));
    }
    wrong(
        "--user",
        "requires --password-stdin, --ilogin or --password",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn options(args: &[&str]) -> Result<Options> {
        let args = std::iter::once("dockersave").chain(args.iter().copied());
        Options::from_low(parse(args.map(Into::into))?)
    }

    #[test]
    fn the_archives_place_follows_from_the_flags() {
        let file =
            |path: &str, beside: Option<&str>| Target::File(path.into(), beside.map(Into::into));
        let directory = |path: &str| Target::Directory(path.into());
        for (args, target) in [
            (&["debian"][..], file("library-debian-latest.tar", None)),
            (&["ghcr.io/a/b:c"], file("a-b-c.tar", None)),
            (
                &["debian", "--working-dir", "/tmp"],
                file("/tmp/library-debian-latest.tar", None),
            ),
            (
                &["debian", "--tarname", "x.tar", "--working-dir", "d"],
                file("d/x.tar", None),
            ),
            (&["debian", "-o", "y/z.tar"], file("y/z.tar", None)),
            (&["debian", "-o", "-"], Target::Stdout),
            (&["debian", "--no-tar"], directory("library-debian-latest")),
            (
                &["debian", "--no-tar", "--no-rm"],
                directory("library-debian-latest"),
            ),
            (
                &[
                    "debian",
                    "--no-tar",
                    "--layers-dir",
                    "l",
                    "--working-dir",
                    "d",
                ],
                directory("d/l"),
            ),
            (
                &["debian", "--layers-dir", "l"],
                file("library-debian-latest.tar", None),
            ),
            (
                &["debian", "--no-rm", "--tarname", "x.tar.xz"],
                file("x.tar.xz", Some("x")),
            ),
            (
                &["debian", "--no-rm", "-o", "a/b"],
                file("a/b", Some("a/b.layers")),
            ),
            (
                &["debian", "--no-rm", "-o", ".tar"],
                file(".tar", Some(".tar.layers")),
            ),
        ] {
            assert_eq!(options(args).ok().unwrap().target, target);
        }
    }

    #[test]
    fn an_archive_is_checked_without_a_pull() {
        let checked = |args: &[&str]| {
            let args = ["dockersave", "--verify", "x.tar"].iter().chain(args);
            check_verify(&parse(args.map(Into::into))?)
        };
        assert!(checked(&[]).is_ok() && checked(&["-q"]).is_ok());
        for args in [
            &["debian"][..],
            &["-o", "y.tar"],
            &["--tags"],
            &["--jobs", "2"],
            &["--insecure"],
            &["--arch", "arm"],
        ] {
            assert_eq!(checked(args).err().unwrap().status(), 2, "{args:?}");
        }
    }

    #[test]
    fn archives_are_joined_without_a_pull() {
        let checked = |thin: &str, args: &[&str]| {
            let head = ["dockersave", "--join", thin];
            let low = parse(head.iter().chain(args).map(Into::into))?;
            check_join(&low, Path::new(thin))
        };
        let file = |path: &str| Target::File(path.into(), None);
        let ok = |thin: &str, args: &[&str]| checked(thin, args).ok().unwrap();
        assert_eq!(ok("x", &["-o", "y"]), file("y"));
        assert_eq!(ok("x", &["-o", "-"]), Target::Stdout);
        assert_eq!(ok("d/a-1-from-0123456789ab.tar", &[]), file("d/a-1.tar"));
        for (thin, args) in [
            ("x", &[][..]),
            ("a-from-0123456789.tar", &[]),
            ("a-from-0123456789abc.tar", &[]),
            ("x", &["debian", "-o", "y"]),
            ("x", &["-o", "y", "--gunzip"]),
            ("x", &["-o", "-", "--restart"]),
            ("x", &["-o", "-", "--json"]),
        ] {
            assert_eq!(checked(thin, args).err().unwrap().status(), 2, "{args:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for args in [
            &[][..],
            &["debian", "-o", "x", "--tarname", "y"],
            &["a", "b", "--sha"],
            &["a", "--tags", "--arch", "arm"],
            &["a", "--platforms", "--arch", "arm"],
            &["a", "--cert", "c"],
            &["a", "--insecure", "--cacert", "c"],
            &["a", "-q", "-v"],
            &["a", "--mirror-tags"],
            &["a", "--password", "p"],
            &["a", "--no-tar", "-o", "x"],
            &["a", "--no-tar", "-o", "-"],
            &["a", "--no-rm", "-o", "-"],
            &["a", "--restart", "-o", "-"],
            &["a", "--all-platforms", "--arch", "arm"],
            &["a", "--all-platforms", "--format", "docker"],
            &["a", "--all-platforms", "--gunzip"],
            &["a", "--gunzip", "--keep-signatures"],
            &["a", "--sha", "--signed-by", "k"],
            &["a", "--referrers", "--all-platforms"],
            &["a", "--inflate-limit", "1G"],
            &["a", "--base-any"],
            &["a", "--gunzip", "--inflate-limit", "1X"],
            &["a", "--limit-rate", "0"],
            &["a", "--user", "u"],
            &["a", "b.example/a", "--user", "u", "--password", "p"],
            &["a", "b.example/a", "--ilogin"],
            &["a", "--user", "u", "--password", "p", "--password-stdin"],
        ] {
            assert_eq!(options(args).err().unwrap().status(), 2, "{args:?}");
        }
    }
}
