//! The pull command: resolve, plan, fill the output, print its path.

use super::error::{Error, Result, STANDARD_OUTPUT, count, gravest};
use super::flags::{Low, Mode};
use super::json::{Object, array};
use super::options::{self, Options};
use super::output::{Stream, TERMINAL};
use super::place::{Goal, Target, target};
use super::progress::{Level, size};
use super::{Shown, answer, json, lock, print_json, print_path, tell_failure};
use dockersave::{
    Base, Client, Image, Plan, PlanOptions, Policy, Pull, Reference, Report, Requirements,
    check_directory, check_file, image_names,
};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn pull(client: &Client, options: &Options, progress: &Shown) -> Result<()> {
    for goal in &options.goals {
        check(options, goal)?;
    }
    let mut made = Vec::new();
    each(options, progress, |goal| {
        one(client, options, goal, &mut made, progress)
    })
}

/// Runs something for each archive, and prints its JSON. If one of several fails, the failure is
/// printed and the others go on.
pub(super) fn each(
    options: &Options,
    progress: &Shown,
    mut run: impl FnMut(&mut Goal) -> Result<Option<String>>,
) -> Result<()> {
    let mut answers = Vec::new();
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
        let answer = if of == 1 {
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

/// Makes one archive; `made` are those before it. Returns its JSON with `--json`.
fn one(
    client: &Client,
    options: &Options,
    goal: &mut Goal,
    made: &mut Vec<PathBuf>,
    progress: &Shown,
) -> Result<Option<String>> {
    let mut stream = open_stream(client, &goal.target, &options.low, progress)?;
    let plan = plan(client, options, goal, progress)?;
    let missing = options.base.as_ref();
    let answer = Answer {
        members: answer::members(plan.images()),
        missing: missing.map(|_| answer::missing(&plan.missing())),
        json: options.low.json,
        mode: options.progress,
    };
    for folder in folders(options, goal) {
        std::fs::create_dir_all(folder).map_err(|error| Error::output(folder, "making", error))?;
    }
    let pull = configured(client, plan, options)
        .lenders(made)
        .observer(|event| lock(progress).event(event));
    let object = make(pull, &goal.target, &mut stream, progress, &answer)?;
    made.extend(goal.target.path().map(Path::to_owned));
    Ok(object)
}

/// What is told of a finished archive.
pub(super) struct Answer {
    /// Its images, as JSON.
    pub members: String,
    /// What a thin one lacks, as JSON.
    pub missing: Option<String>,
    pub json: bool,
    pub mode: Mode,
}

/// Makes the archive, and says where it is; returns its JSON if that is wanted.
pub(super) fn make(
    pull: Pull<'_>,
    target: &Target,
    stream: &mut Option<Stream>,
    progress: &Shown,
    answer: &Answer,
) -> Result<Option<String>> {
    let pull = pull.sha256(answer.json);
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
    // Ends the bar, so that the path is printed below it.
    lock(progress).end();
    if answer.mode == Mode::Json {
        told(&report);
    } else if report.unchanged {
        let text = format!("{} is unchanged", report.path.display());
        lock(progress).note(Level::Info, &text);
    }
    // Nothing else is written where the archive went.
    let taken = stream.as_ref().is_some_and(Stream::is_standard_output);
    if *target == Target::Stdout || taken {
        return Ok(None);
    }
    if answer.json {
        let sha256 = report.sha256.map(|digest| digest.hex());
        let mut object = answer::archive(&report.path, Some(report.size), &answer.members)
            .maybe("sha256", sha256.as_deref())
            .raw("unchanged", if report.unchanged { "true" } else { "false" })
            .number("downloaded", report.downloaded)
            .number("kept", report.kept);
        if let Some(missing) = &answer.missing {
            object = object.raw("missing", missing);
        }
        return Ok(Some(object.finish()));
    }
    print_path(&report.path)?;
    Ok(None)
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
            goal.target = target(&options.low, goal.images[0].name(), None);
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
    if low.output.is_some() || low.tarname.is_some() {
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

/// What the images have to come with.
fn requirements(low: &Low) -> Result<Requirements> {
    let mut wanted = Requirements::default().keep_signatures(low.keep_signatures);
    for key in options::keys(low)? {
        wanted = wanted.signed_by(key);
    }
    if let Some(path) = &low.policy {
        wanted = wanted.policy(Policy::read(path)?);
    }
    if let Some(kind) = &low.keep_referrers {
        wanted = wanted.keep_referrers(kind);
    }
    Ok(wanted)
}

fn resolve(
    client: &Client,
    options: &Options,
    goal: &Goal,
    progress: &Shown,
) -> Result<Vec<Image>> {
    let required = requirements(&options.low)?;
    let mut images = Vec::new();
    for wanted in &goal.images {
        let repository = client.repository(&wanted.reference)?;
        let image = if options.low.all_platforms {
            repository.all_platforms_with(&required)?
        } else {
            repository.image_with(options.platform.as_ref(), &required)?
        };
        for warning in image.warnings() {
            lock(progress).note(Level::Warning, warning);
        }
        images.push(match &wanted.name {
            Some(name) => image.named(name.clone()),
            None => image,
        });
    }
    Ok(images)
}

fn told(report: &Report) {
    let path = json::ascii(&report.path.to_string_lossy());
    // Ignored: standard error may be closed.
    let _ = writeln!(
        std::io::stderr(),
        r#"{{"event":"done","path":{path},"size":{},"unchanged":{},"downloaded":{},"kept":{}}}"#,
        report.size,
        report.unchanged,
        report.downloaded,
        report.kept
    );
}
