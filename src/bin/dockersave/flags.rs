//! The flag table: parsing, help, completions and the manual page all come from it.
//!
//! A flag is a row; `update` puts its value into [`Low`]. The parser prefixes messages with the
//! flag's name.

use dockersave::{Format, Platform, Reference};
use std::ffi::OsString;
use std::path::PathBuf;

/// The parsed command line: each value checked by itself, nothing combined yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Low {
    pub images: Vec<String>,
    pub from: Vec<PathBuf>,
    pub lock: Option<PathBuf>,
    /// Each with its registry, if one was given.
    pub users: Vec<(Option<String>, String)>,
    pub password: Option<String>,
    pub password_stdin: bool,
    pub ilogin: bool,
    pub authfile: Option<PathBuf>,
    pub insecure: bool,
    pub insecure_hosts: Vec<String>,
    pub cacert: Vec<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub skip_verify: bool,
    pub date: Option<u64>,
    pub signed_by: Vec<PathBuf>,
    pub policy: Option<PathBuf>,
    pub keep_signatures: bool,
    pub keep_referrers: Option<String>,
    pub working_dir: Option<PathBuf>,
    pub tarname: Option<PathBuf>,
    pub output: Option<PathBuf>,
    pub names: Vec<Reference>,
    pub quick_check: bool,
    pub platform: Option<Platform>,
    pub all_platforms: bool,
    pub format: Option<Format>,
    /// The image's final files instead of an archive.
    pub rootfs: bool,
    pub no_tar: bool,
    pub no_rm: bool,
    pub layers_dir: Option<PathBuf>,
    pub gunzip: bool,
    pub inflate_limit: Option<u64>,
    pub inflate_memory: Option<u64>,
    pub xz: bool,
    pub reuse: Vec<PathBuf>,
    pub base: Vec<PathBuf>,
    pub base_any: bool,
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
    pub join: Option<PathBuf>,
    pub help: Option<Help>,
    /// The flags for credentials and trust as typed, without any password, for messages that
    /// suggest another command.
    pub again: String,
}

impl Low {
    /// Whether one image is asked about, instead of a pull or what one would do.
    pub fn asks(&self) -> bool {
        self.query
            .is_some_and(|query| !matches!(query, Query::DryRun | Query::Check))
    }
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

/// A query instead of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Metadata,
    Config,
    Sha,
    Tags,
    Platforms,
    Referrers,
    DryRun,
    Check,
}

/// Something to print without doing anything else.
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

/// A value from the parser; flags without one get an empty value.
pub(super) struct Value(pub OsString);

/// A platform, given only once: of two, one would be silently ignored.
fn platform(low: &mut Low, text: &str) -> Result<(), String> {
    if low.platform.is_some() {
        return Err(
            "a platform was already given; pull one at a time, or use --all-platforms".to_owned(),
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

    /// A number of bytes, with a unit as in curl: powers of 1024.
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
            .ok_or_else(|| format!("{text:?} is not a number of bytes such as 500k, 20M or 3G"))
    }

    /// The last second of a day.
    fn date(self) -> Result<u64, String> {
        let text = self.text()?;
        end_of_day(&text).ok_or(format!("{text:?} is not a date such as 2026-11-24"))
    }

    fn number(self, least: u64, most: u64) -> Result<u64, String> {
        let text = self.text()?;
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{text:?} is not a number from {least} to {most}")),
        }
    }
}

/// The last second of a day (UTC), `2026-11-24`: anything that became valid on that day is valid by
/// then.
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
    "Instead of pulling",
];

/// A row of the table.
pub(super) struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// Its value's name; `None` for a switch.
    pub value: Option<&'static str>,
    pub choices: &'static [&'static str],
    /// An index into [`GROUPS`].
    pub group: usize,
    /// One line for `-h`.
    pub line: &'static str,
    /// More text for `--help` and the manual page.
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

/// The groups whose flags a suggested command repeats.
pub(super) const AGAIN: [usize; 2] = [2, 3];

impl Flag {
    /// Its value as the help shows it.
    pub fn shown_value(&self) -> String {
        let blank = if self.is_optional() { "" } else { " " };
        self.value
            .map_or(String::new(), |value| format!("{blank}{value}"))
    }

    /// A value's name determines its type.
    pub fn offer(&self) -> Offer {
        match self.value {
            _ if !self.choices.is_empty() => Offer::Choices(self.choices),
            Some("FILE" | "PATH" | "ARCHIVE" | "OLD" | "THIN") => Offer::File,
            Some("DIR") => Offer::Directory,
            _ => Offer::Nothing,
        }
    }

    /// Is its value one that may be left out, and stands behind an equals sign?
    pub fn is_optional(&self) -> bool {
        self.value.is_some_and(|value| value.starts_with("[="))
    }

    /// Whether it may be given more than once, each time with another value.
    pub fn repeats(&self) -> bool {
        self.more.contains("May be given more than once.")
    }
}

/// The registry in a text such as `localhost:5000`, if it is one.
pub(super) fn host(text: &str) -> Option<String> {
    let name: Reference = format!("{text}/x").parse().ok()?;
    // A text that is not a host would be part of a path at Docker Hub.
    let hub = text.contains('.') && name.path() == "library/x";
    (hub || name.path() == "x").then(|| name.domain().to_ascii_lowercase())
}

/// `NAME`, or `HOST=NAME`.
fn user(low: &mut Low, text: String) -> Result<(), String> {
    let split = text.split_once('=');
    let (host, name) = match split.and_then(|(before, name)| Some((host(before)?, name))) {
        Some((host, name)) => (Some(host), name.to_owned()),
        None => (None, text),
    };
    if name.is_empty() {
        return Err("needs a name".to_owned());
    }
    if low.users.iter().any(|(known, _)| *known == host) {
        return Err(match host {
            Some(host) => format!("{host} already has a user"),
            None => "was already given; use --user HOST=NAME for several".to_owned(),
        });
    }
    low.users.push((host, name));
    Ok(())
}

fn insecure(low: &mut Low, text: &str) -> Result<(), String> {
    match host(text) {
        _ if text.is_empty() => low.insecure = true,
        Some(host) if host == "docker.io" || host == "registry-1.docker.io" => {
            return Err("Docker Hub speaks HTTPS only".to_owned());
        }
        Some(host) => low.insecure_hosts.push(host),
        None => return Err(format!("{text:?} is not a registry such as localhost:5000")),
    }
    Ok(())
}

/// An image's name in the archive.
fn name(low: &mut Low, text: &str) -> Result<(), String> {
    let name: Reference = text.parse().map_err(|e: dockersave::Error| e.to_string())?;
    if name.digest().is_some() {
        return Err("a name in an archive has a tag, not a digest".to_owned());
    }
    low.names.push(name);
    Ok(())
}

fn query(low: &mut Low, query: Query) -> Result<(), String> {
    if low.query.is_some_and(|other| other != query) {
        return Err("only one query can be made at a time".into());
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
    flag!("from" None, Some("FILE"), 0, "also pull the images that FILE lists; - is standard input",
        "May be given more than once. FILE has one image per line, optionally with its platform and a file name that ends in .tar, or is a compose file or a Kubernetes manifest, whose image: lines are read, or a lock. # starts a comment. An image that is listed twice is pulled once. If a line cannot be read, or two archives would have the same name, nothing is pulled.",
        |low, value| { low.from.push(value.path()?); Ok(()) }),
    flag!("platform" None, Some("OS/ARCH[/VARIANT]"), 0, "which platform of a multi-platform image (default: this machine's)",
        "If the image does not have it, the error lists the platforms that exist.",
        |low, value| platform(low, &value.text()?)),
    flag!("arch" None, Some("ARCH"), 0, "short for --platform linux/ARCH", "",
        |low, value| platform(low, &format!("linux/{}", value.text()?))),
    flag!("all-platforms" None, None, 0, "pull the images of all platforms, as an OCI layout",
        "The index and its attestations are kept as they are.",
        |low, _| { low.all_platforms = true; Ok(()) }),
    flag!("keep-signatures" None, None, 0, "also put the image's signatures into the archive",
        "The index is included, because it is what most people sign. --verify --signed-by checks them offline; cosign verify --local-image takes the unpacked archive if cosign 3 signed the manifest itself.",
        |low, _| { low.keep_signatures = true; Ok(()) }),
    flag!("keep-referrers" None, Some("[=TYPE]"), 0, "also put SBOMs and other referrers into the archive",
        "Only those of this artifact type, or all. They become blobs of the archive without an entry in index.json, because some loaders accept only one entry.",
        |low, value| { low.keep_referrers = Some(value.text()?); Ok(()) }),
    flag!("output" Some('o'), Some("PATH"), 1, "the archive's path; - is standard output", "Replaces --working-dir and --tarname. Several images go into this one archive; DIR/ instead means archives with default names in DIR. Standard output gets the same archive, in order and without disk: dockersave debian -o - | docker load. Descriptors (/dev/stdout, /dev/fd/3), FIFOs, sockets and devices are written to in the same way, not replaced; a FIFO must get a reader within --timeout.",
        |low, value| { low.output = Some(value.path()?); Ok(()) }),
    flag!("working-dir" None, Some("DIR"), 1, "where the archive goes (default: here)", "",
        |low, value| { low.working_dir = Some(value.path()?); Ok(()) }),
    flag!("tarname" None, Some("NAME"), 1, "the archive's file name (default: library-debian-latest.tar for debian)", "",
        |low, value| { low.tarname = Some(value.path()?); Ok(()) }),
    flag!("as" None, Some("NAME"), 1, "the image's name in the archive, as for docker tag",
        "May be given more than once. With several images, give one for each, in order. The default file name follows NAME, too.",
        |low, value| name(low, &value.text()?)),
    flag!("no-tar" None, None, 1, "leave a directory instead of an archive", "The directory is an OCI layout with a manifest.json: skopeo copy oci:DIR takes it, and docker load takes a tar of it.",
        |low, _| { low.no_tar = true; Ok(()) }),
    flag!("no-rm" None, None, 1, "leave a directory beside the archive", "",
        |low, _| { low.no_rm = true; Ok(()) }),
    flag!("layers-dir" None, Some("NAME"), 1, "the directory's name (default: the archive's without .tar)", "",
        |low, value| { low.layers_dir = Some(value.path()?); Ok(()) }),
    Flag {
        choices: &["docker", "oci", "rootfs"],
        ..flag!("format" None, Some("FORMAT"), 1, "docker: for all loaders (default); oci: only an OCI layout; rootfs: the image's files",
        "An archive of format docker is a docker-archive and an OCI layout at once; oci omits manifest.json. rootfs is no archive of an image but a tar of its files, library-debian-latest.rootfs.tar: the layers put together, for a chroot, an initramfs or mkfs.",
        |low, value| {
            let format = value.text()?;
            low.rootfs = format == "rootfs";
            low.format = match format.as_str() { "oci" => Some(Format::Oci), "docker" => Some(Format::Docker), _ => None };
            Ok(())
        })
    },
    flag!("gunzip" None, None, 1, "store layers uncompressed", "Inflates gzip and zstd layers and checks them against the config's diff IDs. The manifest changes, and so does its digest. Until the archive is finished the disk also holds the compressed layers; with --output - they are downloaded twice instead. A zstd layer needs memory for its window, at most 8 MiB.",
        |low, _| { low.gunzip = true; Ok(()) }),
    flag!("inflate-limit" None, Some("SIZE"), 1, "the largest size of an uncompressed layer", "Default: a hundred times its compressed size, but at least 1 GiB.",
        |low, value| { low.inflate_limit = Some(value.bytes()?); Ok(()) }),
    flag!("xz" None, None, 1, "compress the archive with xz", "The default name then ends in .tar.xz. Most layers arrive compressed, so add --gunzip to get the smallest archive. Takes up to 40 MiB of memory, and disk for the uncompressed archive; with --output - no disk.",
        |low, _| { low.xz = true; Ok(()) }),
    flag!("reuse" None, Some("ARCHIVE"), 1, "take blobs from this archive or directory if it has them", "May be given more than once. Blobs are hashed before they are taken; only the rest is downloaded. The archive that is about to be replaced is used without being named.",
        |low, value| { low.reuse.push(value.path()?); Ok(()) }),
    flag!("base" None, Some("OLD"), 1, "leave out the layers that the target has from OLD", "May be given more than once. OLD is the archive or directory that the target was loaded from, or a file with its engine's output: docker or podman image inspect, crictl inspecti, ctr content ls, or one digest per line. The archive is then thin: docker load, ctr images import and podman load (of one image) take it if those layers are there. Only the lowest layers are left out, because Docker's classic store finds no others. Its name ends in -from- and 12 digits that identify OLD; if nothing can be left out, it is the full archive under the usual name. With --gunzip the layers that are left out are measured, and downloaded for that unless OLD is an archive that has them. OLD is not hashed: --verify does that.",
        |low, value| { low.base.push(value.path()?); Ok(()) }),
    flag!("base-any" None, None, 1, "with --base: leave out any layer, not only the lowest", "For a target whose store is containerd's, which finds each layer by its digest.",
        |low, _| { low.base_any = true; Ok(()) }),
    flag!("lock" None, Some("FILE"), 1, "write a lock: digests, sizes and SHA-256 of what was pulled",
        "--from FILE pulls exactly that again, by digest, with status 6 if an archive has another SHA-256. An existing lock is renewed: images whose tags still name the same digest, and whose archives are here, are not pulled again; if a pull fails, its line stays. FILE is written only if it changes.",
        |low, value| { low.lock = Some(value.path()?); Ok(()) }),
    flag!("quick-check" None, None, 1, "check an existing archive without hashing its layers",
        "An existing archive that is already what is requested is left unchanged, with its time. Its size, headers and documents are compared and, without this flag, its layers are hashed.",
        |low, _| { low.quick_check = true; Ok(()) }),
    flag!("restart" None, None, 1, "discard a partial download",
        "An existing archive is written again even if it would not change.",
        |low, _| { low.restart = true; Ok(()) }),
    flag!("user" None, Some("[HOST=]NAME"), 2, "user name at the registry",
        "May be given more than once. HOST is the registry or mirror that NAME is for, such as ghcr.io; without HOST, the command line must name only one. Text before = that is not a host is part of NAME.",
        |low, value| user(low, value.text()?)),
    flag!("password" None, Some("PASSWORD"), 2, "password of --user",
        "Every user of this machine can see it in the process list: --password-stdin and --ilogin are safer.",
        |low, value| { low.password = Some(value.text()?); Ok(()) }),
    flag!("password-stdin" None, None, 2, "read the password of --user from standard input", "One line for each --user, in order.",
        |low, _| { low.password_stdin = true; Ok(()) }),
    flag!("ilogin" None, None, 2, "ask for user and password on the terminal", "With --user, only for the password of each.",
        |low, _| { low.ilogin = true; Ok(()) }),
    flag!("authfile" None, Some("FILE"), 2, "look for credentials in this file only",
        "Default: DOCKERSAVE_USER and DOCKERSAVE_PASSWORD, $DOCKER_AUTH_CONFIG, $REGISTRY_AUTH_FILE, Docker's config.json, containers' auth.json, and the helpers named in them.",
        |low, value| { low.authfile = Some(value.path()?); Ok(()) }),
    flag!("insecure" None, Some("[=HOST]"), 3, "the registry speaks plain HTTP",
            "May be given more than once. With =HOST, such as --insecure=localhost:5000, this is only for that registry or mirror; otherwise for all on the command line. It never applies to Docker Hub. The insecure registries in Docker's daemon.json and in registries.conf are settings of other programs and are not used.",
            |low, value| insecure(low, &value.text()?)),
    flag!("cacert" None, Some("FILE"), 3, "also trust the certificates in FILE (PEM)", "May be given more than once.",
        |low, value| { low.cacert.push(value.path()?); Ok(()) }),
    flag!("cert" None, Some("FILE"), 3, "client certificate (PEM), to go with --key", "",
        |low, value| { low.cert = Some(value.path()?); Ok(()) }),
    flag!("key" None, Some("FILE"), 3, "private key (PEM) of --cert", "",
        |low, value| { low.key = Some(value.path()?); Ok(()) }),
    flag!("tls-skip-verify" None, None, 3, "do not check certificates",
        "Anyone on the network path can then choose which image a tag means; pull by digest to be sure.",
        |low, _| { low.skip_verify = true; Ok(()) }),
    flag!("date" None, Some("YYYY-MM-DD"), 3, "the date to check certificates against, if the clock is wrong",
        "Without it, a clock before the date of this program counts as that date.",
        |low, value| { low.date = Some(value.date()?); Ok(()) }),
    flag!("signed-by" None, Some("FILE"), 3, "pull only images signed with this public key (PEM)",
        "May be given more than once. One of the keys (ECDSA P-256 or P-384, Ed25519, RSA) must have signed the manifest, or the index that names it, with cosign; the signature may be a tag, a referrer or a bundle. It is checked before the first layer is downloaded, or in the archive with --verify. Transparency logs, certificates and attestations do not count; for keyless signatures run cosign verify IMAGE first and pull the digest that it prints.",
        |low, value| { low.signed_by.push(value.path()?); Ok(()) }),
    flag!("policy" None, Some("FILE"), 3, "pull only images that this policy.json accepts",
        "The format is that of containers-policy.json(5). It may use the default, the scopes of docker, and the requirements reject, insecureAcceptAnything and sigstoreSigned with keyPath, keyPaths or keyData; an image that requires anything else is refused. signedIdentity works as in podman for older signatures. A bundle of cosign 3 names no repository: it counts only if signedIdentity is left out.",
        |low, value| { low.policy = Some(value.path()?); Ok(()) }),
    flag!("mirror" None, Some("URL"), 4, "ask this registry first, and the real one if it fails",
        "May be given more than once. Tags are still resolved at the real registry, and everything is checked against its digest, so a mirror cannot change an image. URL is [SCHEME://]HOST[:PORT][/PREFIX]; its credentials are looked up under its own name.",
        |low, value| { low.mirrors.push(value.text()?); Ok(()) }),
    flag!("mirror-tags" None, None, 4, "let mirrors resolve tags, too",
        "For networks without access to the real registry. Mirrors are then trusted like the registry.",
        |low, _| { low.mirror_tags = true; Ok(()) }),
    flag!("limit-rate" None, Some("RATE"), 4, "limit bytes per second, for all connections together", "A number of bytes, optionally with k, M or G.",
        |low, value| { low.limit_rate = Some(value.bytes()?); Ok(()) }),
    flag!("jobs" Some('j'), Some("N"), 4, "maximum number of connections (default 6)", "",
        |low, value| { low.jobs = Some(value.number(1, 64)? as usize); Ok(()) }),
    flag!("retries" None, Some("N"), 4, "retries without progress in between (default 5)",
        "A host that refuses the first connection is tried only once more, after half a second.",
        |low, value| { low.retries = Some(value.number(0, 1000)? as u32); Ok(()) }),
    flag!("timeout" None, Some("SECONDS"), 4, "how long a connection may be idle (default 30)",
        "Four times this for the first byte of a response, eight times for all redirects together, twice this for a connection that only trickles (less than 64 bytes per second, 512 for a document).",
        |low, value| { low.timeout = Some(value.number(1, 86_400)?); Ok(()) }),
    Flag {
        long: "progress",
        short: None,
        value: Some("HOW"),
        choices: &["auto", "bar", "plain", "json", "none"],
        group: 5,
        line: "how to show progress on standard error: auto, bar, plain, json, none",
        more: "auto is bar on a terminal and plain elsewhere. json prints one object per line.",
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
    flag!("quiet" Some('q'), None, 5, "print only errors", "",
        |low, _| { low.quiet = true; Ok(()) }),
    flag!("verbose" Some('v'), None, 5, "print each step and request, never a secret", "",
        |low, _| { low.verbose = true; Ok(()) }),
    flag!("json" None, None, 5, "print JSON on standard output",
        "For a pull, one object instead of the path; for several archives, an array of them.",
        |low, _| { low.json = true; Ok(()) }),
    flag!("metadata" None, None, 6, "print the image's manifest",
        "As the registry serves it: for a multi-platform image, the index. With --platform, that platform's manifest.",
        |low, _| query(low, Query::Metadata)),
    flag!("config" None, None, 6, "print the image's config: its command, environment, user, ports",
        "The JSON document as it is, of the platform that a pull would take.",
        |low, _| query(low, Query::Config)),
    flag!("sha" None, None, 6, "print the manifest's digest",
        "For a multi-platform image, the digest of the index. With --platform, of that platform's manifest. Without it the registry is asked with HEAD, which Docker Hub does not count as a pull.",
        |low, _| query(low, Query::Sha)),
    flag!("tags" None, None, 6, "print the repository's tags, one per line", "All pages are read; each tag is printed as it arrives.",
        |low, _| query(low, Query::Tags)),
    flag!("platforms" None, None, 6, "list the image's platforms with digests and sizes",
        "The size is that of the layers. Takes one request for the index and one for each manifest in it; each may count as a pull.",
        |low, _| query(low, Query::Platforms)),
    flag!("referrers" None, None, 6, "list what refers to the image: type, digest, size",
        "Those of the manifest or index that the tag names; with --platform, of that platform's manifest. --json includes their annotations.",
        |low, _| query(low, Query::Referrers)),
    flag!("dry-run" None, None, 6, "print what would be downloaded and what is already here",
        "One line per entry of the archive: known, here, partly or download; its size; its path. Manifests and configs are counted. Nothing is written, and a partial file's claims are checked only when the pull resumes.",
        |low, _| query(low, Query::DryRun)),
    flag!("check" None, None, 6, "say what a renewal of --lock would change; status 10 if anything",
        "One line per image: unchanged, changed, new or removed; its reference; its digest in the lock, and now. Registries are asked with HEAD, which does not count as a pull.",
        |low, _| query(low, Query::Check)),
    flag!("verify" None, Some("ARCHIVE"), 6, "check an existing archive of any tool",
        "Hashes every byte that a digest covers, and compares the tar, index.json, manifest.json, manifests and configs with each other. Prints a line for each defect, with status 6; the status is 8 if nothing is wrong but some layers were not inflated. - reads an archive from standard input. An archive compressed with gzip or zstd is inflated on the way. A directory with an image is accepted, too. For a thin archive (see --base) the status is 9, unless --base names one that has the layers it lacks.",
        |low, value| { low.verify = Some(value.path()?); Ok(()) }),
    flag!("join" None, Some("THIN"), 6, "make the full archive of a thin one and its --base, offline",
        "Gives the same bytes as a full pull, each blob checked. --base names archives or directories that have the layers THIN lacks, in the same form: uncompressed if it was made with --gunzip. --output is the archive's path, or - for an engine that takes no thin archives: dockersave --join THIN --base OLD -o - | docker load. The default is THIN's name without -from- and what follows. An interrupted run resumes.",
        |low, value| { low.join = Some(value.path()?); Ok(()) }),
    flag!("inflate-memory" None, Some("SIZE"), 6, "the largest zstd window that --verify inflates (default: 8M)",
        "This memory comes on top of the usual 8 MiB. A layer that needs a larger window is hashed as it is and counted as not inflated.",
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
