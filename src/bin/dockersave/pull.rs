//! The pull command: resolve, plan, fill the output, print its path.

use super::done::{Answer, Done, finished, tell};
use super::error::{Error, Result, STANDARD_OUTPUT, count, gravest};
use super::flags::Low;
use super::json::{Object, array};
use super::list::lock::Row;
use super::made::Made;
use super::options::Options;
use super::output::{Stream, TERMINAL};
use super::place::{Goal, Target, Wanted, target};
use super::progress::{Level, size};
use super::renew::{Book, archive, settled};
use super::resolve::{differs, resolve, rows};
use super::{Shown, answer, lock, print_json, tell_failure};
use dockersave::{
    Base, Client, Plan, PlanOptions, Pull, Reference, check_directory, check_file, image_names,
};
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

pub(super) fn pull(client: &Client, options: &Options, progress: &Shown) -> Result<()> {
    for goal in &options.goals {
        check(options, goal)?;
    }
    let mut made = Made::default();
    let mut book = options.lock.clone();
    let outcome = each(options, progress, Vec::new(), &mut |goal| {
        let answer = one(client, options, goal, (&mut made, &mut book), progress)?;
        Ok(answer.into_iter().collect())
    });
    // Also after an interrupt: what was pulled is in the lock.
    let written = book.map_or(Ok(()), |book| book.write(&options.goals));
    match (outcome, written) {
        (Err(error), Err(other)) => {
            tell_failure(other.status(), &other.to_string(), options.progress);
            Err(error)
        }
        (outcome, written) => outcome.and(written),
    }
}

/// Runs something for each archive, and prints its JSON behind other `answers`. If one of several
/// fails, the failure is printed and the others go on.
pub(super) fn each(
    options: &Options,
    progress: &Shown,
    mut answers: Vec<String>,
    run: &mut dyn FnMut(&mut Goal) -> Result<Vec<String>>,
) -> Result<()> {
    let mut failed = Vec::new();
    let of = options.goals.len();
    for goal in &options.goals {
        let outcome = run(&mut goal.clone());
        lock(progress).end();
        match outcome {
            Ok(answer) => answers.extend(answer),
            Err(error) if of == 1 || error.ends_all() => return Err(error),
            Err(error) => {
                let (status, text) = (error.status(), error.to_string());
                let reference = &goal.images[0].reference;
                tell_failure(status, &format!("{reference}: {text}"), options.progress);
                failed.push(status);
                let object = Object::new().text("reference", &reference.to_string());
                let object = object.number("status", status.into());
                answers.push(object.text("error", &text).finish());
            }
        }
    }
    if options.low.json && !answers.is_empty() {
        let answer = if of == 1 && answers.len() == 1 {
            answers.remove(0)
        } else {
            array(&answers)
        };
        print_json(&(answer + "\n"))?;
    }
    match failed.len() {
        0 => Ok(()),
        failures => Err(Error::Several {
            failed: failures,
            of,
            status: gravest(&failed),
        }),
    }
}

/// Leaves an archive that is as a lock says, whose images still are those. Returns its JSON with
/// `--json`.
fn kept(
    client: &Client,
    options: &Options,
    goal: &Goal,
    (made, book): (&mut Made, &mut Option<Book>),
    progress: &Shown,
) -> Result<Option<Option<String>>> {
    let low = &options.low;
    // Signatures are checked each time.
    if !low.signed_by.is_empty() || low.policy.is_some() || low.restart {
        return Ok(None);
    }
    let Some(path) = goal.target.path().filter(|path| path.exists()) else {
        return Ok(None);
    };
    lock(progress).busy("checking what is there");
    let platform = options.platform.as_ref();
    let rows = settled(client, goal, book.as_ref(), platform, low.quick_check)?;
    lock(progress).end();
    let Some(rows) = rows else {
        return Ok(None);
    };
    let answer = Answer {
        members: answer::rows(&rows),
        missing: None,
        json: low.json,
        hashed: true,
        mode: options.progress,
    };
    let done = Done::settled(path, rows[0].size, rows[0].sha256);
    made.add(path, Vec::new());
    if let Some(book) = book {
        book.add(rows);
    }
    finished(&done, &answer, progress).map(Some)
}

/// Makes one archive; `made` are those before it, and `book` is the lock that is renewed. Returns
/// its JSON with `--json`.
fn one(
    client: &Client,
    options: &Options,
    goal: &mut Goal,
    (made, book): (&mut Made, &mut Option<Book>),
    progress: &Shown,
) -> Result<Option<String>> {
    let low = &options.low;
    if let Some(kept) = kept(client, options, goal, (made, book), progress)? {
        return Ok(kept);
    }
    let mut stream = open_stream(client, &goal.target, low, progress)?;
    let plan = plan(client, options, goal, progress)?;
    let missing = options.base.as_ref();
    let answer = Answer {
        members: answer::members(plan.images()),
        missing: missing.map(|_| answer::missing(&plan.missing())),
        json: low.json,
        hashed: low.json || book.is_some() || goal.images[0].locked.is_some(),
        mode: options.progress,
    };
    let rows = rows(&plan, options, goal);
    for folder in folders(options, goal) {
        std::fs::create_dir_all(folder).map_err(|error| Error::output(folder, "making", error))?;
    }
    let blobs = Made::blobs(&plan);
    let locked = goal.images[0].locked.as_deref();
    if let Some(row) = locked {
        let known = !low.gunzip && !low.xz;
        let same = |(row, wanted): (&Row, &Wanted)| {
            let locked = wanted.locked.as_ref();
            locked.is_some_and(|locked| locked.manifest == row.manifest)
        };
        if known && plan.size() != row.size || !rows.iter().zip(&goal.images).all(same) {
            return Err(differs(goal, row, "another size or manifest"));
        }
    }
    let mut pull = configured(client, plan, options)
        .lenders(&made.lenders(&blobs))
        .observer(|event| lock(progress).event(event));
    if let Some(row) = locked {
        pull = pull.expect_sha256(row.sha256);
    }
    let made_now = make(pull, &goal.target, &mut stream, progress, &answer);
    let (done, object) = made_now.map_err(|error| match (locked, error) {
        (Some(row), Error::Library(dockersave::Error::Mismatch { digest, found, .. }))
            if *digest == row.sha256 =>
        {
            differs(goal, row, &found)
        }
        (_, error) => error,
    })?;
    if let (Some(book), Some(sha256), Some(archive)) = (book, done.sha256, archive(goal)) {
        book.add(rows.into_iter().map(|row| Row {
            size: done.size,
            sha256,
            archive: archive.to_owned(),
            ..row
        }));
    }
    if let Some(path) = goal.target.path() {
        made.add(path, blobs);
    }
    Ok(object)
}

/// Makes the archive, and says where it is; returns also its JSON if that is wanted.
pub(super) fn make(
    pull: Pull<'_>,
    target: &Target,
    stream: &mut Option<Stream>,
    progress: &Shown,
    answer: &Answer,
) -> Result<(Done, Option<String>)> {
    let pull = pull.sha256(answer.hashed);
    let report = match (target, &mut *stream) {
        (Target::File(path, None), _) => pull.to_file(path),
        (Target::File(path, Some(beside)), _) => pull.directory(beside).to_file(path),
        (Target::Directory(path), _) => pull.to_directory(path),
        (Target::Stream(_, path), Some(stream)) => {
            let mut report = pull
                .to_writer(stream)
                .map_err(|error| stream.name(error.into()))?;
            stream.finish().map_err(|error| stream.name(error))?;
            report.path.clone_from(path);
            Ok(report)
        }
        _ => pull.to_writer(&mut standard_output()?),
    }?;
    let done = Done::of(report);
    // Nothing else is written where the archive went.
    let taken = stream.as_ref().is_some_and(Stream::is_standard_output);
    if *target == Target::Stdout || taken {
        tell(&done, answer, progress);
        return Ok((done, None));
    }
    let object = finished(&done, answer, progress)?;
    Ok((done, object))
}

/// A pull of a plan as the command line has it.
pub(super) fn configured<'c>(client: &'c Client, plan: Plan, options: &Options) -> Pull<'c> {
    let low = &options.low;
    let mut pull = Pull::new(client, plan)
        .jobs(low.jobs.unwrap_or(6))
        .restart(low.restart)
        .quick_check(low.quick_check)
        .xz(low.xz);
    for path in &low.reuse {
        pull = pull.reuse(path);
    }
    if low.gunzip {
        pull = pull.inflate(low.inflate_limit);
    }
    if low.rootfs {
        pull = pull.rootfs(low.inflate_limit);
    }
    pull
}

/// Opens an output that is not a regular file, before the first request.
pub(super) fn open_stream(
    client: &Client,
    target: &Target,
    low: &Low,
    progress: &Shown,
) -> Result<Option<Stream>> {
    let Target::Stream(outlet, path) = target else {
        return Ok(None);
    };
    let wait = Duration::from_secs(low.timeout.unwrap_or(30));
    let waits = || {
        let text = format!("waiting for a reader of {}", path.display());
        lock(progress).note(Level::Info, &text);
    };
    let stream = Stream::open(outlet, path, client, wait, &waits)?;
    if low.json && stream.is_standard_output() {
        return Err(Error::usage(
            "--json",
            "prints to standard output, where --output writes the archive",
        ));
    }
    Ok(Some(stream))
}

/// The plan of the pull. If nothing can be left out, the archive gets its usual name.
pub(super) fn plan(
    client: &Client,
    options: &Options,
    goal: &mut Goal,
    progress: &Shown,
) -> Result<Plan> {
    let images = resolve(client, options, goal, progress)?;
    let mut how = PlanOptions::default().format(options.low.format.unwrap_or_default());
    if let Some(base) = &options.base {
        how = how.base(base.clone());
    }
    let plan = Plan::new(&images, &how)?;
    if let Some(base) = &options.base {
        tell_thin(&plan, base, progress);
        if plan.missing().is_empty() {
            goal.target = target(&options.low, &goal.images[0], None);
        }
        if goal.target.path().is_some() {
            check(options, goal)?;
        }
    }
    Ok(plan)
}

/// What is left out, and what cannot be.
fn tell_thin(plan: &Plan, base: &Base, progress: &Shown) {
    for path in base.thin() {
        let text = format!(
            "{} is itself thin, so only the layers in it count; add its own base with another --base",
            path.display()
        );
        lock(progress).note(Level::Info, &text);
    }
    let missing = plan.missing();
    let mut text = match missing.len() {
        0 => "nothing can be left out, so this is the full archive".to_owned(),
        layers => format!(
            "thin: left out {} of {}",
            count(layers, "layer"),
            size(missing.iter().map(|one| one.size).sum())
        ),
    };
    let above = plan.above();
    if above > 0 {
        text.push_str(&format!(
            "; {} more are on the target, but above new layers: --base-any leaves them out for containerd's store",
            size(above)
        ));
    }
    lock(progress).note(Level::Info, &text);
}

/// Checks the output before the first request. A directory that does not exist yet is fine.
pub(super) fn check(options: &Options, goal: &Goal) -> Result<()> {
    check_name(options, goal)?;
    let new =
        |path: &Path| folders(options, goal).any(|own| path.starts_with(own) && !own.exists());
    let beside = |path: &Path| match new(path) {
        true => Ok(()),
        false => Ok(check_directory(path)?),
    };
    match &goal.target {
        Target::File(path, directory) => {
            if path.is_dir() {
                let why = "it is a directory; add a trailing slash to write the archive into it";
                return Err(Error::output(path, "writing", std::io::Error::other(why)));
            }
            if !new(path) {
                check_file(path)?;
            }
            directory.as_deref().map_or(Ok(()), beside)
        }
        Target::Directory(path) => beside(path),
        Target::Stdout if std::io::stdout().is_terminal() => {
            Err(Error::usage("--output -", TERMINAL))
        }
        Target::Stream(..) | Target::Stdout => Ok(()),
    }
}

/// A default name may belong to another repository's archive, which is not replaced.
fn check_name(options: &Options, goal: &Goal) -> Result<()> {
    let low = &options.low;
    let wanted = goal.images[0].name();
    let same = |name: &Reference| (name.domain(), name.path()) == (wanted.domain(), wanted.path());
    let (archive, directory) = match &goal.target {
        Target::File(path, beside) => (Some(path), beside.as_ref()),
        Target::Directory(path) => (None, Some(path)),
        _ => return Ok(()),
    };
    let first = &goal.images[0];
    // A root file system does not say whose it is.
    let chosen = low.rootfs || first.file.is_some() && first.locked.is_none();
    if chosen || low.output.is_some() || low.tarname.is_some() {
        return Ok(());
    }
    let directory = directory.filter(|_| low.layers_dir.is_none());
    for path in archive.into_iter().chain(directory) {
        let names = image_names(path).into_iter();
        let names: Vec<Reference> = names.filter_map(|name| name.parse().ok()).collect();
        if let Some(other) = names.first()
            && !names.iter().any(same)
        {
            let flag = if archive.is_some() {
                "--tarname"
            } else {
                "--layers-dir"
            };
            let why = format!("it holds {other}; choose another name with {flag}, or move it away");
            return Err(Error::output(path, "replacing", std::io::Error::other(why)));
        }
    }
    Ok(())
}

/// The directories that are created if missing, as the Python program did.
fn folders<'o>(options: &'o Options, goal: &'o Goal) -> impl Iterator<Item = &'o Path> {
    let layers = match &goal.target {
        Target::File(_, Some(path)) | Target::Directory(path) => Some(path),
        _ => None,
    };
    let layers = layers.filter(|_| options.low.layers_dir.is_some());
    let parent = layers.and_then(|path| path.parent());
    let folders = options.low.working_dir.as_deref().into_iter().chain(parent);
    folders.filter(|path| !path.as_os_str().is_empty())
}

/// Standard output without std's line buffer.
fn standard_output() -> Result<File> {
    let fd = std::io::stdout().as_fd().try_clone_to_owned();
    fd.map(File::from)
        .map_err(|error| Error::output(Path::new(STANDARD_OUTPUT), "opening", error))
}
