//! [`Low`] → [`Options`]: checks combinations, reads the environment, prompts for passwords. After
//! this nothing about the command line can fail.

use super::error::{Error, Result, count};
use super::flags::{Low, Mode, Query};
use super::login::{Login, logins};
use super::names;
use super::output::Outlet;
use super::place::{Goal, Target, Wanted, goals, target};
use super::renew::Book;
use super::sources::{check_lock, listed, shape};
use dockersave::{Base, Format, Platform, PublicKey, Reference};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

pub(super) struct Options {
    /// The archives to make, in order; at least one.
    pub goals: Vec<Goal>,
    pub logins: Vec<Login>,
    /// The lock that is renewed.
    pub lock: Option<Book>,
    /// What the target has already.
    pub base: Option<Base>,
    pub platform: Option<Platform>,
    pub progress: Mode,
    pub low: Low,
    /// Notes about how images were typed.
    pub notes: Vec<String>,
}

impl Options {
    /// The image of a query.
    pub fn reference(&self) -> &Reference {
        &self.goals[0].images[0].reference
    }

    pub fn from_low(mut low: Low) -> Result<Self> {
        let wrong = |what: &str, why: &str| Err(Error::usage(what, why));
        let (typed, mut notes) = names::references(&low)?;
        let listed = listed(&mut low, &mut notes)?;
        let own = listed.iter().map(|image| image.reference.clone());
        let references: Vec<Reference> = typed.iter().cloned().chain(own).collect();
        if low.output.is_some() && (low.tarname.is_some() || low.working_dir.is_some()) {
            return wrong(
                "--output",
                "is the whole path; omit --tarname and --working-dir",
            );
        }
        // A directory for archives with default names.
        let slash = |path: &PathBuf| path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if low.output.as_ref().is_some_and(slash) {
            low.working_dir = low.output.take();
        }
        if !low.names.is_empty() && low.names.len() != typed.len() {
            let why = format!(
                "names {}, but there are {} on the command line: give one for each, in order",
                count(low.names.len(), "image"),
                typed.len()
            );
            return wrong("--as", &why);
        }
        if !low.names.is_empty() && low.asks() {
            return wrong("--as", "is a name in an archive, and a query makes none");
        }
        if low.asks() && (references.len() > 1 || !low.from.is_empty()) {
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
                "means plain HTTP, which has no certificates; omit --cacert, --cert and --tls-skip-verify, or name the registry with --insecure=HOST",
            );
        }
        let plain = |address: &String| !address.contains("://");
        if low.insecure
            && references.iter().all(|one| one.domain() == "docker.io")
            && !low.mirrors.iter().any(plain)
        {
            return wrong(
                "--insecure",
                "has no registry to apply to: Docker Hub speaks HTTPS only; omit it",
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
                "belong to one manifest; omit --all-platforms",
            );
        }
        let mut aliases = low.names.iter().cloned();
        let wanted = typed.into_iter().map(|reference| Wanted {
            name: aliases.next(),
            ..Wanted::new(reference, String::new())
        });
        let wanted: Vec<Wanted> = wanted.chain(listed).collect();
        let own = |image: &Wanted| image.platform.is_some();
        if low.all_platforms
            && let Some(image) = wanted.iter().find(|image| own(image))
        {
            return wrong(
                &image.origin,
                "has a platform, but --all-platforms pulls all of them",
            );
        }
        let plain = target(&low, &wanted[0], None);
        refuse_contradictions(&low, &plain)?;
        check_lock(&low, &wanted, &plain)?;
        let base = match low.base.is_empty() {
            true => None,
            false => Some(Base::open(&low.base)?.any(low.base_any)),
        };
        let goals = goals(&low, wanted, base.as_ref())?;
        if let Some(path) = low.from.iter().find(|path| {
            goals
                .iter()
                .any(|goal| goal.target.paths().any(|own| own == *path))
        }) {
            let why = format!(
                "an archive would replace {}; choose another name",
                path.display()
            );
            return wrong("--from", &why);
        }
        let lock = match &low.lock {
            Some(path) => {
                let book = Book::open(path, shape(&low))?;
                book.check(&goals, low.working_dir.as_deref())?;
                Some(book)
            }
            None => None,
        };
        if low.rootfs && goals.iter().any(|goal| goal.images.len() > 1) {
            return wrong(
                "--format rootfs",
                "is a tar of one image's files; pull one image, or omit --output and --tarname",
            );
        }
        let logins = logins(&low, &references)?;
        Ok(Self {
            goals,
            lock,
            logins,
            notes,
            base,
            platform: low.platform.clone(),
            progress: progress(&low),
            low,
        })
    }

    /// The paths beside which partial outputs may be.
    pub fn partials(&self) -> impl Iterator<Item = PathBuf> {
        let gunzip = self.low.gunzip;
        let full = |goal: &Goal| target(&self.low, &goal.images[0], None);
        let targets = self.goals.iter().flat_map(move |goal| {
            let full = self.base.as_ref().map(|_| full(goal));
            [
                goal.target.partial(gunzip),
                full.and_then(|full| full.partial(gunzip)),
            ]
        });
        targets.flatten()
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
            "changes the manifest, so no signature or referrer is for it; omit --keep-signatures and --keep-referrers",
        ),
        (
            low.asks()
                && (!low.signed_by.is_empty()
                    || low.policy.is_some()
                    || low.keep_signatures
                    || low.keep_referrers.is_some()),
            "--signed-by, --policy, --keep-signatures and --keep-referrers",
            "are for pulls and --dry-run",
        ),
        (
            low.inflate_limit.is_some() && !low.gunzip && !low.rootfs,
            "--inflate-limit",
            "requires --gunzip",
        ),
        (
            low.rootfs
                && (low.all_platforms
                    || low.gunzip
                    || low.no_tar
                    || low.no_rm
                    || low.keep_signatures
                    || low.keep_referrers.is_some()
                    || !low.base.is_empty()),
            "--format rootfs",
            "is a tar of one image's files, without layers; omit --all-platforms, --gunzip, --no-tar, --no-rm, --keep-signatures, --keep-referrers and --base",
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

/// The keys that were named.
pub(super) fn keys(low: &Low) -> Result<Vec<PublicKey>> {
    low.signed_by
        .iter()
        .map(|path| Ok(PublicKey::read(path)?))
        .collect()
}

/// The flags that --verify and --join both take; all others have their defaults.
fn common(low: &Low) -> Low {
    Low {
        base: low.base.clone(),
        quiet: low.quiet,
        json: low.json,
        verbose: low.verbose,
        progress: low.progress,
        again: low.again.clone(),
        ..Low::default()
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
        inflate_memory: low.inflate_memory,
        signed_by: low.signed_by.clone(),
        ..common(low)
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
        output: low.output.clone(),
        restart: low.restart,
        jobs: low.jobs,
        timeout: low.timeout,
        ..common(low)
    };
    if *low != taken {
        return wrong(
            "uses existing files and pulls nothing; use it only with --base, --output, --restart, --jobs, --timeout, --json, --quiet, --verbose and --progress",
        );
    }
    let path = low.output.clone().or_else(|| full_name(thin));
    let Some(path) = path else {
        return wrong("requires --output: the full archive's name does not follow from its name");
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
            assert_eq!(options(args).ok().unwrap().goals[0].target, target);
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
