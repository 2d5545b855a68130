//! THE flag table: parsing, help, completions and the man page all come from it.
//!
//! A flag is a row; `update` puts its value into [`Low`] and never names the flag, because the
//! parser prefixes its name to every message.

use dockersave::{Format, Platform};
use std::ffi::OsString;
use std::path::PathBuf;

/// What was on the command line, each value checked for itself; nothing is done yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Low {
    pub images: Vec<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub password_stdin: bool,
    pub ilogin: bool,
    pub authfile: Option<PathBuf>,
    pub insecure: bool,
    pub cacert: Vec<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub skip_verify: bool,
    pub date: Option<u64>,
    pub working_dir: Option<PathBuf>,
    pub tarname: Option<PathBuf>,
    pub output: Option<PathBuf>,
    pub platform: Option<Platform>,
    pub all_platforms: bool,
    pub format: Option<Format>,
    pub no_tar: bool,
    pub no_rm: bool,
    pub layers_dir: Option<PathBuf>,
    pub gunzip: bool,
    pub inflate_limit: Option<u64>,
    pub inflate_memory: Option<u64>,
    pub xz: bool,
    pub reuse: Vec<PathBuf>,
    pub limit_rate: Option<u64>,
    pub mirrors: Vec<String>,
    pub mirror_tags: bool,
    pub jobs: Option<usize>,
    pub retries: Option<u32>,
    pub timeout: Option<u64>,
    pub restart: bool,
    pub verbose: bool,
    pub quiet: bool,
    pub progress: Option<Mode>,
    pub query: Option<Query>,
    pub json: bool,
    pub verify: Option<PathBuf>,
    pub help: Option<Help>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// What is asked instead of pulling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Metadata,
    Sha,
    Tags,
    Platforms,
    DryRun,
}

/// What is printed without looking at anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    Short,
    Long,
    Version,
    Completions(Shell),
    Man,
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A value as the parser hands it over; flags without one get an empty value.
pub(super) struct Value(pub OsString);

/// One platform, given once: of two, one would be ignored in silence.
fn platform(low: &mut Low, text: &str) -> Result<(), String> {
    if low.platform.is_some() {
        return Err(
            "a platform was given already; pull one at a time, or use --all-platforms".to_owned(),
        );
    }
    let platform = text.parse().map_err(|e: dockersave::Error| e.to_string())?;
    low.platform = Some(platform);
    Ok(())
}

impl Value {
    fn text(self) -> Result<String, String> {
        self.0
            .into_string()
            .map_err(|_| "the value is not UTF-8".to_owned())
    }

    fn path(self) -> Result<PathBuf, String> {
        if self.0.is_empty() {
            Err("needs a path".to_owned())
        } else {
            Ok(self.0.into())
        }
    }

    /// A number of bytes, with a unit as curl has them: powers of 1024.
    fn bytes(self) -> Result<u64, String> {
        let text = self.text()?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => Some(0),
            "k" | "kb" | "kib" => Some(10),
            "m" | "mb" | "mib" => Some(20),
            "g" | "gb" | "gib" => Some(30),
            "t" | "tb" | "tib" => Some(40),
            _ => None,
        };
        let number: Option<u64> = digits.trim().parse().ok();
        number
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(1 << unit))
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| format!("{text:?} is no number of bytes, such as 500k, 20M or 3G"))
    }

    /// The last second of a day.
    fn date(self) -> Result<u64, String> {
        let text = self.text()?;
        end_of_day(&text).ok_or(format!("{text:?} is no day such as 2026-11-24"))
    }

    fn number(self, least: u64, most: u64) -> Result<u64, String> {
        let text = self.text()?;
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{text:?} is no number from {least} to {most}")),
        }
    }
}

/// The last second of a day (UTC), `2026-11-24`: what became valid on that day is valid by then.
fn end_of_day(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years are counted from March, so that the leap day is the last of one.
    let (y, m) = (year - u64::from(month <= 2), (month + 9) % 12);
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 719_469;
    Some((days + 1) * 86_400 - 1)
}

/// The groups of `--help`, in order.
pub(super) const GROUPS: [&str; 7] = [
    "What to pull",
    "Where to put it",
    "Credentials",
    "Trust",
    "Transfer",
    "Messages",
    "Instead of a pull",
];

/// A row of the table.
pub(super) struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// What its value is called; none for a switch.
    pub value: Option<&'static str>,
    pub choices: &'static [&'static str],
    /// An index into [`GROUPS`].
    pub group: usize,
    /// One line for `-h`.
    pub line: &'static str,
    /// What `--help` and the man page say beyond that.
    pub more: &'static str,
    pub update: fn(&mut Low, Value) -> Result<(), String>,
}

/// What a shell offers for a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Nothing,
    File,
    Directory,
    Choices(&'static [&'static str]),
}

impl Flag {
    /// What a value is called says what it is.
    pub fn offer(&self) -> Offer {
        match self.value {
            _ if !self.choices.is_empty() => Offer::Choices(self.choices),
            Some("FILE" | "PATH" | "ARCHIVE") => Offer::File,
            Some("DIR") => Offer::Directory,
            _ => Offer::Nothing,
        }
    }

    /// May it be given more than once, each time with a further value?
    pub fn repeats(&self) -> bool {
        self.more.contains("May be given more than once.")
    }
}

fn query(low: &mut Low, query: Query) -> Result<(), String> {
    if low.query.is_some_and(|other| other != query) {
        return Err("only one question at a time can be asked".into());
    }
    low.query = Some(query);
    Ok(())
}

const NO_CHOICES: &[&str] = &[];

macro_rules! flag {
    ($long:literal $short:expr, $value:expr, $group:literal, $line:literal, $more:literal, $update:expr) => {
        Flag {
            long: $long,
            short: $short,
            value: $value,
            choices: NO_CHOICES,
            group: $group,
            line: $line,
            more: $more,
            update: $update,
        }
    };
}

/// All flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag!("platform" None, Some("OS/ARCH[/VARIANT]"), 0, "which image of a multi-platform one (default: this machine's)",
        "Where the image has none for it, the error lists those there are.",
        |low, value| platform(low, &value.text()?)),
    flag!("arch" None, Some("ARCH"), 0, "short for --platform linux/ARCH", "",
        |low, value| platform(low, &format!("linux/{}", value.text()?))),
    flag!("all-platforms" None, None, 0, "the images of all platforms, as an OCI layout",
        "The index stays as it is, and so do the attestations in it.",
        |low, _| { low.all_platforms = true; Ok(()) }),
    flag!("output" Some('o'), Some("PATH"), 1, "the archive's path; - is standard output", "Instead of --working-dir and --tarname. To standard output goes the same archive, in order and without any disk: dockersave debian -o - | docker load. A descriptor (/dev/stdout, /dev/fd/3), a FIFO, a socket or a device is written to in the same way and stays what it is; a FIFO without a reader is waited for as long as --timeout says. A link to a file stays, and the file is replaced.",
        |low, value| { low.output = Some(value.path()?); Ok(()) }),
    flag!("working-dir" None, Some("DIR"), 1, "where the archive goes (default: here)", "",
        |low, value| { low.working_dir = Some(value.path()?); Ok(()) }),
    flag!("tarname" None, Some("NAME"), 1, "the archive's name (default: library-debian-latest.tar for debian)", "",
        |low, value| { low.tarname = Some(value.path()?); Ok(()) }),
    flag!("no-tar" None, None, 1, "leave a directory instead of an archive", "It is an OCI layout with manifest.json in it: skopeo copy oci:DIR takes it, and so does docker load what tar makes of it.",
        |low, _| { low.no_tar = true; Ok(()) }),
    flag!("no-rm" None, None, 1, "leave the directory beside the archive", "",
        |low, _| { low.no_rm = true; Ok(()) }),
    flag!("layers-dir" None, Some("NAME"), 1, "the directory's name (default: the archive's without .tar)", "",
        |low, value| { low.layers_dir = Some(value.path()?); Ok(()) }),
    Flag {
        choices: &["docker", "oci"],
        ..flag!("format" None, Some("FORMAT"), 1, "docker: for all loaders (default); oci: an OCI layout alone",
        "An archive of format docker is a docker-archive and an OCI layout at once; oci leaves manifest.json out.",
        |low, value| { low.format = Some(if value.text()? == "oci" { Format::Oci } else { Format::Docker }); Ok(()) })
    },
    flag!("gunzip" None, None, 1, "store layers uncompressed", "Layers in gzip and zstd are inflated and checked against the config's diff IDs. The manifest is another one then, and so is its digest. Until the archive is finished the disk holds the layers as they came, too; with --output - they are downloaded twice instead. A layer in zstd takes its window in memory, too, at most 8 MiB.",
        |low, _| { low.gunzip = true; Ok(()) }),
    flag!("inflate-limit" None, Some("SIZE"), 1, "the most a layer may have uncompressed", "Without it: a hundred times what it has compressed, and 1 GiB in any case.",
        |low, value| { low.inflate_limit = Some(value.bytes()?); Ok(()) }),
    flag!("xz" None, None, 1, "compress the archive with xz", "Its name ends in .tar.xz unless it is given. Layers mostly come compressed: together with --gunzip it makes the smallest archive. Takes up to 40 MiB of memory, and disk for the archive as it was before, too; with --output - no disk.",
        |low, _| { low.xz = true; Ok(()) }),
    flag!("reuse" None, Some("ARCHIVE"), 1, "take from this archive or directory what it has", "May be given more than once. What is taken is hashed first; only the rest is downloaded. The archive that is about to be replaced serves without being named.",
        |low, value| { low.reuse.push(value.path()?); Ok(()) }),
    flag!("restart" None, None, 1, "forget a partial download", "",
        |low, _| { low.restart = true; Ok(()) }),
    flag!("user" None, Some("USER"), 2, "user at the registry", "",
        |low, value| { low.user = Some(value.text()?); Ok(()) }),
    flag!("password" None, Some("PASSWORD"), 2, "password of --user",
        "Every user of this machine can read it in the list of processes: --password-stdin and --ilogin are safer.",
        |low, value| { low.password = Some(value.text()?); Ok(()) }),
    flag!("password-stdin" None, None, 2, "read the password of --user from standard input", "",
        |low, _| { low.password_stdin = true; Ok(()) }),
    flag!("ilogin" None, None, 2, "ask for user and password on the terminal", "",
        |low, _| { low.ilogin = true; Ok(()) }),
    flag!("authfile" None, Some("FILE"), 2, "look for credentials in this file only",
        "Without it: DOCKERSAVE_USER and DOCKERSAVE_PASSWORD, $DOCKER_AUTH_CONFIG, $REGISTRY_AUTH_FILE, Docker's config.json, containers' auth.json, and the helpers that these name.",
        |low, value| { low.authfile = Some(value.path()?); Ok(()) }),
    flag!("insecure" None, None, 3, "the registry speaks plain HTTP", "",
        |low, _| { low.insecure = true; Ok(()) }),
    flag!("cacert" None, Some("FILE"), 3, "trust the certificates in FILE (PEM), too", "May be given more than once.",
        |low, value| { low.cacert.push(value.path()?); Ok(()) }),
    flag!("cert" None, Some("FILE"), 3, "identify with this certificate (PEM), which --key belongs to", "",
        |low, value| { low.cert = Some(value.path()?); Ok(()) }),
    flag!("key" None, Some("FILE"), 3, "the private key (PEM) of --cert", "",
        |low, value| { low.key = Some(value.path()?); Ok(()) }),
    flag!("tls-skip-verify" None, None, 3, "check no certificate",
        "Whoever sits on the line can then choose which image a tag means; pull by digest to be sure.",
        |low, _| { low.skip_verify = true; Ok(()) }),
    flag!("date" None, Some("YYYY-MM-DD"), 3, "the day to judge certificates by, where the clock is wrong",
        "Without it, a clock that stands before this program's own date counts as standing there.",
        |low, value| { low.date = Some(value.date()?); Ok(()) }),
    flag!("mirror" None, Some("URL"), 4, "ask this registry first, and the real one where it fails",
        "May be given more than once. Tags are still resolved at the real registry, and what comes is checked against its digest, so that a mirror cannot change an image. URL is [SCHEME://]HOST[:PORT][/PREFIX]; its credentials are looked up under its own name.",
        |low, value| { low.mirrors.push(value.text()?); Ok(()) }),
    flag!("mirror-tags" None, None, 4, "let mirrors say what a tag stands for, too",
        "For where the real registry cannot be reached. A mirror is then trusted as the registry is.",
        |low, _| { low.mirror_tags = true; Ok(()) }),
    flag!("limit-rate" None, Some("RATE"), 4, "at most so many bytes a second, all connections together", "A number of bytes, or one with k, M or G behind it.",
        |low, value| { low.limit_rate = Some(value.bytes()?); Ok(()) }),
    flag!("jobs" Some('j'), Some("N"), 4, "the most connections at once (default 6)", "",
        |low, value| { low.jobs = Some(value.number(1, 64)? as usize); Ok(()) }),
    flag!("retries" None, Some("N"), 4, "how often to try again without progress in between (default 5)", "",
        |low, value| { low.retries = Some(value.number(0, 1000)? as u32); Ok(()) }),
    flag!("timeout" None, Some("SECONDS"), 4, "how long a connection may bring nothing (default 30)",
        "An answer's head may take four times as long, all redirects together eight times. A connection that only trickles (under 64 bytes a second, 512 for a document) is given up after twice as long.",
        |low, value| { low.timeout = Some(value.number(1, 86_400)?); Ok(()) }),
    Flag {
        long: "progress",
        short: None,
        value: Some("HOW"),
        choices: &["auto", "bar", "plain", "json", "none"],
        group: 5,
        line: "how to show progress on standard error: auto, bar, plain, json, none",
        more: "auto is bar on a terminal and plain elsewhere. json is one object a line.",
        update: |low, value| {
            low.progress = Some(match value.text()?.as_str() {
                "auto" => Mode::Auto,
                "bar" => Mode::Bar,
                "plain" => Mode::Plain,
                "json" => Mode::Json,
                _ => Mode::None,
            });
            Ok(())
        },
    },
    flag!("quiet" Some('q'), None, 5, "say nothing but errors", "",
        |low, _| { low.quiet = true; Ok(()) }),
    flag!("verbose" Some('v'), None, 5, "say each step and request, never a secret", "",
        |low, _| { low.verbose = true; Ok(()) }),
    flag!("json" None, None, 5, "answer in JSON on standard output",
        "For a pull: one object instead of the path, with path, size, downloaded, kept and images.",
        |low, _| { low.json = true; Ok(()) }),
    flag!("metadata" None, None, 6, "print the image's manifest",
        "As the registry has it: the index, for a multi-platform image. With --platform, that platform's manifest.",
        |low, _| query(low, Query::Metadata)),
    flag!("sha" None, None, 6, "print the manifest's digest",
        "The digest is what the registry names: of the index, for a multi-platform image. With --platform, of that platform's manifest. Without it the registry is asked by HEAD, which Docker Hub does not count as a pull.",
        |low, _| query(low, Query::Sha)),
    flag!("tags" None, None, 6, "print the repository's tags, one a line", "Each as it comes, from all pages.",
        |low, _| query(low, Query::Tags)),
    flag!("platforms" None, None, 6, "list the image's platforms with digests and sizes",
        "The size is that of the layers. One request for the index and one for each manifest in it; each may count as a pull.",
        |low, _| query(low, Query::Platforms)),
    flag!("dry-run" None, None, 6, "say what would be downloaded, and what is there",
        "One line an entry of the archive: known, here, partly or download; its size; its path. Nothing is written, and what a partial file claims to hold is checked only when the pull goes on.",
        |low, _| query(low, Query::DryRun)),
    flag!("verify" None, Some("ARCHIVE"), 6, "check an archive that is there, whoever made it, and stop",
        "Every byte that a digest covers is hashed, and the tar, index.json, manifest.json, the manifests and configs are compared with each other. Each defect is a line, and the status is then 6; it is 8 where nothing is wrong, but some layers were not inflated. - is standard input, for an archive from a pipe. An archive that is compressed with gzip or zstd is inflated on the way. A directory with an image is taken, too.",
        |low, value| { low.verify = Some(value.path()?); Ok(()) }),
    flag!("inflate-memory" None, Some("SIZE"), 6, "the largest zstd window that --verify inflates (default: 8M)",
        "So much memory may a layer in zstd take, on top of the usual 8 MiB. A layer that asks for more is hashed as it is and counted as not inflated.",
        |low, value| { low.inflate_memory = Some(value.bytes()?); Ok(()) }),
    Flag {
        long: "completions",
        short: None,
        value: Some("SHELL"),
        choices: &["bash", "zsh", "fish"],
        group: 6,
        line: "print completions for bash, zsh or fish",
        more: "",
        update: |low, value| {
            low.help = Some(Help::Completions(match value.text()?.as_str() {
                "bash" => Shell::Bash,
                "zsh" => Shell::Zsh,
                _ => Shell::Fish,
            }));
            Ok(())
        },
    },
    flag!("man" None, None, 6, "print the manual page", "dockersave --man | man -l - shows it.",
        |low, _| { low.help = Some(Help::Man); Ok(()) }),
    flag!("version" Some('V'), None, 6, "print version, target and commit", "",
        |low, _| { low.help = Some(Help::Version); Ok(()) }),
    flag!("help" Some('h'), None, 6, "print this help; -h prints it short", "",
        |low, _| { low.help = Some(Help::Long); Ok(()) }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_end_late() {
        for (day, end) in [
            ("1970-01-01", 86_399),
            ("2000-02-29", 951_868_799),
            ("2000-03-01", 951_955_199),
            ("2026-11-24", 1_795_564_799),
            ("2100-03-01", 4_107_628_799),
        ] {
            assert_eq!(end_of_day(day), Some(end), "{day}");
        }
        for wrong in [
            "",
            "2026",
            "2026-11",
            "2026-13-01",
            "24.11.2026",
            "1969-01-01",
            "2026-11-24-1",
        ] {
            assert_eq!(end_of_day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_table_is_sound() {
        for (at, flag) in FLAGS.iter().enumerate() {
            assert!(
                !FLAGS[..at].iter().any(|other| other.long == flag.long),
                "{} twice",
                flag.long
            );
            assert!(
                flag.short.is_none() || !FLAGS[..at].iter().any(|other| other.short == flag.short)
            );
            assert!(
                flag.group < GROUPS.len() && !flag.line.is_empty() && !flag.line.ends_with('.')
            );
            assert!(
                flag.more.is_empty() || flag.more.ends_with('.'),
                "{}",
                flag.long
            );
            assert!(
                flag.long
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c == b'-')
            );
            assert!(flag.line.is_ascii() && flag.more.is_ascii());
            assert!(flag.choices.is_empty() || flag.value.is_some());
            // Shells tell what to offer by what a value is called.
            assert!(
                flag.value
                    .is_none_or(|value| value.is_ascii() && value == value.to_uppercase())
            );
        }
    }
}
