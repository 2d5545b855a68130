//! Running the program as a user would: clean environment, empty directory, every output checked.

use crate::registry::image::{Image, sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A directory that is removed when dropped.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path =
            std::env::temp_dir().join(format!("dockersave-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the tests use as password (also as it stands in Basic), signature and token.
pub const SECRETS: [&str; 4] = ["hunter2", "bWU6aHVudGVyMg", "sesame", "t0ken"];

/// The outcome of a run.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Peak resident memory in bytes, if measured.
    pub peak: u64,
    pub time: Duration,
}

/// Where an emulated program's memory lies in the emulator's own, which puts nothing of its own
/// there: below what Linux uses without being told, above what a program of 32 bits can reach.
const GUEST: std::ops::Range<u64> = 0x2000_0000_0000..0x3000_0000_0000;

/// qemu-user, where the binary is for another processor.
fn runner() -> Option<String> {
    let runner = std::env::var("DOCKERSAVE_TEST_RUNNER").ok();
    runner.filter(|runner| !runner.is_empty())
}

/// The program under test, which another build of it may stand for.
fn program(before: &[String]) -> Command {
    let binary = std::env::var("DOCKERSAVE_TEST_BINARY")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_dockersave").to_owned());
    let base = format!("{:#x}", GUEST.start);
    let runner = runner().map(|runner| [runner, "-B".to_owned(), base]);
    let mut words = default_signals()
        .into_iter()
        .chain(before.iter().cloned())
        .chain(runner.into_iter().flatten())
        .chain([binary]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// A command before a command where these tests run with signals ignored, as a background job of a
/// script does: what they start would ignore them, too.
pub fn default_signals() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    // HUP, INT and TERM.
    if mask & 0x4003 == 0 {
        return Vec::new();
    }
    ["/usr/bin/env", "--default-signal=HUP,INT,TERM"]
        .map(str::to_owned)
        .to_vec()
}

/// Whether this process may have its own mounts; prints a note if not.
pub fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "mount", "--bind", "/dev/null", "/etc/hosts"])
        .output();
    let able = tried.is_ok_and(|output| output.status.success());
    if !able {
        eprintln!("skipped: this process may not have mounts of its own");
    }
    able
}

#[must_use]
pub struct Run<'d> {
    dir: &'d Dir,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<String>,
    limit: Duration,
    before: Vec<String>,
}

impl<'d> Run<'d> {
    pub fn new(dir: &'d Dir, args: &[&str]) -> Self {
        Self {
            dir,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            environment: Vec::new(),
            stdin: None,
            limit: Duration::from_secs(60),
            before: Vec::new(),
        }
    }

    /// A shell script that ends in `exec "$@"`, which is the program.
    pub fn within(mut self, script: &str) -> Self {
        let words = ["/bin/sh", "-c", script, "sh"];
        self.before = words.map(str::to_owned).to_vec();
        self
    }

    /// With a view of the file system in which these files have another content.
    pub fn with_files(self, files: &[(&str, &str)]) -> Self {
        let mounts: Vec<String> = files
            .iter()
            .map(|(theirs, ours)| format!("mount --bind {ours} {theirs}"))
            .collect();
        let script = format!(
            "PATH=/usr/bin:/bin:/usr/sbin:/sbin; {} && exec \"$@\"",
            mounts.join(" && ")
        );
        let mut run = self.within(&script);
        run.before
            .splice(0..0, ["/usr/bin/unshare", "-m"].map(str::to_owned));
        run
    }

    /// A pull over plain HTTP, with few retries.
    pub fn pull(dir: &'d Dir, image: &str) -> Self {
        Self::new(dir, &["--insecure", "--retries", "2", image])
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    pub fn spawn(&self) -> Child {
        let mut command = program(&self.before);
        command
            .args(&self.args)
            .env_clear()
            .env("HOME", self.dir.path())
            .envs(self.environment.iter().cloned())
            .current_dir(self.dir.path())
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[track_caller]
    pub fn outcome(self) -> Outcome {
        let begin = Instant::now();
        let mut child = self.spawn();
        if let Some(text) = &self.stdin {
            // A program that has failed already reads nothing more.
            let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        }
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || {
            let mut text = Vec::new();
            out.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        let err = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut peak = 0;
        let status = loop {
            peak = peak.max(resident(child.id()));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begin.elapsed() > self.limit {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!(
                    "{:?} did not end within {:?}: {}",
                    self.args,
                    self.limit,
                    err.join().unwrap()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Outcome {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
            peak,
            time: begin.elapsed(),
        }
    }

    /// Runs, and expects this exit status.
    #[track_caller]
    pub fn status(self, expected: i32) -> Outcome {
        let what = self.args.join(" ");
        let outcome = self.outcome();
        assert_eq!(
            outcome.status.code(),
            Some(expected),
            "dockersave {what}\n{}{}",
            outcome.stdout,
            outcome.stderr
        );
        outcome.clean();
        outcome
    }

    /// Runs, expects success and the archive's path as all of standard output.
    #[track_caller]
    pub fn archive(self) -> Archive {
        let dir = self.dir.path().to_owned();
        let outcome = self.status(0);
        let name = outcome
            .stdout
            .strip_suffix('\n')
            .expect("the path ends in a newline");
        assert!(
            !name.contains('\n'),
            "more than a path on standard output: {name:?}"
        );
        Archive::read(&dir.join(name), outcome)
    }

    /// Runs, expects this failure with this text in its message, and nothing under a final name.
    #[track_caller]
    pub fn fails(self, status: i32, text: &str) -> Outcome {
        let dir = self.dir;
        let before = dir.names();
        let outcome = self.status(status);
        assert!(
            outcome.stderr.contains(text),
            "no {text:?} in {:?}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout, "");
        let new: Vec<String> = dir
            .names()
            .into_iter()
            .filter(|name| !before.contains(name) && name.ends_with(".tar"))
            .collect();
        assert!(new.is_empty(), "left behind: {new:?}");
        outcome
    }
}

impl Outcome {
    /// Bytes of layers that came from the network, as `--progress json` told at the end.
    #[track_caller]
    pub fn downloaded(&self) -> u64 {
        let done = self.stderr.lines().last().unwrap_or_default();
        let (_, count) = done.split_once(r#""downloaded":"#).unwrap();
        count.split(',').next().unwrap().parse().unwrap()
    }

    /// Nothing from a server controls the terminal.
    #[track_caller]
    fn clean(&self) {
        let bad = self.stderr.chars().find(|c| c.is_control() && *c != '\n');
        assert!(bad.is_none(), "{bad:?} in {:?}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.keeps_secrets();
    }

    /// None of the tests' secrets was printed in any form.
    #[track_caller]
    pub fn keeps_secrets(&self) -> &Self {
        for text in [&self.stdout, &self.stderr] {
            let told = SECRETS.iter().find(|secret| text.contains(**secret));
            assert!(told.is_none(), "{told:?} was printed: {text}");
        }
        self
    }

    /// No more memory than promised, whatever the image.
    #[track_caller]
    pub fn is_small(&self) -> &Self {
        assert!(self.peak <= 8 << 20, "{} bytes resident", self.peak);
        self
    }
}

/// What a process takes, in bytes: at most so far, or now where it is emulated.
fn resident(process: u32) -> u64 {
    if runner().is_some() {
        return guest(process);
    }
    // A child that is about to become the program has the memory of the tests.
    let own = std::fs::read_link(format!("/proc/{process}/exe")).ok();
    let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
        return 0;
    };
    if own.is_none() || own == std::env::current_exe().ok() {
        return 0;
    }
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB"))
            .map_or(0, |kb| kb.trim().parse::<u64>().unwrap() * 1024)
    };
    let peak = field("VmHWM:");
    if std::env::var_os("DOCKERSAVE_TEST_BINARY").is_some() {
        return peak;
    }
    // A debug build's code and the C library's are twice what is shipped. That is counted as if
    // all of the largest file that may be shipped were resident.
    peak.saturating_sub(field("RssFile:")) + SHIPPED
}

/// The most that a static binary may have, which every build of them checks.
const SHIPPED: u64 = 2 << 20;

/// What of an emulator's memory is the program's own: its code, its data, its stacks.
fn guest(process: u32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/smaps")) else {
        return 0;
    };
    let (mut inside, mut sum) = (false, 0);
    for line in text.lines() {
        if let Some(size) = line.strip_prefix("Rss:") {
            if inside {
                let size = size.trim().strip_suffix(" kB").unwrap();
                sum += size.parse::<u64>().unwrap() * 1024;
            }
        } else if let Some((start, _)) = line.split_once('-') {
            // Other lines with a hyphen begin with a name that is no number.
            inside = u64::from_str_radix(start, 16).map_or(inside, |start| GUEST.contains(&start));
        }
    }
    sum
}

/// A finished archive, read back.
pub struct Archive {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub names: Vec<String>,
    pub outcome: Outcome,
}

impl Archive {
    #[track_caller]
    fn read(path: &Path, outcome: Outcome) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut files = BTreeMap::new();
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(hash) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(
                    sha256(&content),
                    format!("sha256:{hash}"),
                    "{name} is not what its name says"
                );
            }
            names.push(name.clone());
            assert!(
                files.insert(name, content).is_none(),
                "an entry stands twice"
            );
        }
        Self {
            path: path.to_owned(),
            bytes,
            files,
            names,
            outcome,
        }
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.files[name].clone()).unwrap()
    }

    /// Holds exactly this image, with this tag where one is given.
    #[track_caller]
    pub fn holds(&self, image: &Image, tag: Option<&str>) -> &Self {
        let list: Vec<String> = image
            .layers
            .iter()
            .map(|layer| format!("{:?}", layer.path()))
            .collect();
        let tags = tag.map_or("null".to_owned(), |tag| format!("[{tag:?}]"));
        let expected = format!(
            r#"[{{"Config":{:?},"RepoTags":{tags},"Layers":[{}]}}]"#,
            image.config.path(),
            list.join(",")
        );
        assert_eq!(self.text("manifest.json").trim(), expected);
        assert!(
            self.text("index.json").contains(&image.digest()),
            "{}",
            self.text("index.json")
        );
        assert_eq!(self.text("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(self.files[&blob.path()], blob.data(), "{}", blob.path());
        }
        let manifest = format!("blobs/{}", image.digest().replace(':', "/"));
        assert_eq!(self.files[&manifest], image.manifest().into_bytes());
        self
    }
}
