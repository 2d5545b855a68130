//! The pull command: resolve, plan, fill the output, print its path.

use super::error::{Error, Result, STANDARD_OUTPUT, count};
use super::flags::{Low, Mode};
use super::options::{Options, Target};
use super::output::{Stream, TERMINAL};
use super::progress::size;
use super::{Shown, json, lock, print_json, print_path, query};
use dockersave::{
    Base, Client, Image, Plan, PlanOptions, Policy, Pull, Reference, Report, Requirements,
    check_directory, check_file, image_names,
};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

pub(super) fn pull(client: &Client, options: &mut Options, progress: &Shown) -> Result<()> {
    check(options)?;
    let mut stream = open_stream(client, &options.target, &options.low)?;
    let plan = plan(client, options, progress)?;
    let options = &*options;
    let answer = Answer {
        members: query::members(plan.images()),
        missing: options
            .base
            .as_ref()
            .map(|_| query::missing(&plan.missing())),
        json: options.low.json,
        mode: options.progress,
    };
    for folder in folders(options) {
        std::fs::create_dir_all(folder).map_err(|error| Error::output(folder, "making", error))?;
    }
    let pull = configured(client, plan, options).observer(|event| lock(progress).event(event));
    make(pull, &options.target, &mut stream, progress, &answer)
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

/// Makes the archive, and says where it is.
pub(super) fn make(
    pull: Pull<'_>,
    target: &Target,
    stream: &mut Option<Stream>,
    progress: &Shown,
    answer: &Answer,
) -> Result<()> {
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
    }
    // Nothing else is written where the archive went.
    let taken = stream.as_ref().is_some_and(Stream::is_standard_output);
    if *target == Target::Stdout || taken {
        return Ok(());
    }
    if answer.json {
        let mut object = query::archive(&report.path, Some(report.size), &answer.members)
            .number("downloaded", report.downloaded)
            .number("kept", report.kept);
        if let Some(missing) = &answer.missing {
            object = object.raw("missing", missing);
        }
        return print_json(&(object.finish() + "\n"));
    }
    print_path(&report.path)
}

/// A pull of a plan as the command line has it.
pub(super) fn configured<'c>(client: &'c Client, plan: Plan, options: &Options) -> Pull<'c> {
    let low = &options.low;
    let mut pull = Pull::new(client, plan)
        .jobs(low.jobs.unwrap_or(6))
        .restart(low.restart)
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
pub(super) fn open_stream(client: &Client, target: &Target, low: &Low) -> Result<Option<Stream>> {
    let Target::Stream(outlet, path) = target else {
        return Ok(None);
    };
    let wait = Duration::from_secs(low.timeout.unwrap_or(30));
    let stream = Stream::open(outlet, path, client, wait)?;
    if low.json && stream.is_standard_output() {
        return Err(Error::usage(
            "--json",
            "prints to standard output, where --output writes the archive",
        ));
    }
    Ok(Some(stream))
}

/// The plan of the pull. If nothing can be left out, the archive gets its usual name.
pub(super) fn plan(client: &Client, options: &mut Options, progress: &Shown) -> Result<Plan> {
    let images = resolve(client, options, progress)?;
    let mut how = PlanOptions::default().format(options.low.format.unwrap_or_default());
    if let Some(base) = &options.base {
        how = how.base(base.clone());
    }
    let plan = Plan::new(&images, &how)?;
    if let Some(base) = &options.base {
        tell_thin(&plan, base, progress);
        options.name_after(&plan);
        if options.target.path().is_some() {
            check(options)?;
        }
    }
    Ok(plan)
}

/// What is left out, and what cannot be.
fn tell_thin(plan: &Plan, base: &Base, progress: &Shown) {
    for path in base.thin() {
        lock(progress).note(&format!(
            "dockersave: {} is thin itself, so only the layers in it count; name its own base with a further --base",
            path.display()
        ));
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
            "; {} more are on the target, above layers that are new: --base-any leaves them out for containerd's store",
            size(above)
        ));
    }
    lock(progress).note(&format!("dockersave: {text}"));
}

/// Checks the output before the first request. A directory that does not exist yet is fine.
pub(super) fn check(options: &Options) -> Result<()> {
    check_name(options)?;
    let new = |path: &Path| folders(options).any(|own| path.starts_with(own) && !own.exists());
    let beside = |path: &Path| match new(path) {
        true => Ok(()),
        false => Ok(check_directory(path)?),
    };
    match &options.target {
        Target::File(path, directory) => {
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
fn check_name(options: &Options) -> Result<()> {
    let low = &options.low;
    let wanted = &options.references[0];
    let same = |name: &Reference| (name.domain(), name.path()) == (wanted.domain(), wanted.path());
    let (archive, directory) = match &options.target {
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
fn folders(options: &Options) -> impl Iterator<Item = &Path> {
    let layers = match &options.target {
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
    for key in super::verify::keys(low)? {
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

fn resolve(client: &Client, options: &Options, progress: &Shown) -> Result<Vec<Image>> {
    let wanted = requirements(&options.low)?;
    let mut images = Vec::new();
    for reference in &options.references {
        let repository = client.repository(reference)?;
        let image = if options.low.all_platforms {
            repository.all_platforms_with(&wanted)?
        } else {
            repository.image_with(options.platform.as_ref(), &wanted)?
        };
        for warning in image.warnings() {
            lock(progress).note(&format!("dockersave: warning: {warning}"));
        }
        images.push(image);
    }
    Ok(images)
}

fn told(report: &Report) {
    let path = json::ascii(&report.path.to_string_lossy());
    // Ignored: standard error may be closed.
    let _ = writeln!(
        std::io::stderr(),
        r#"{{"event":"done","path":{path},"size":{},"downloaded":{},"kept":{}}}"#,
        report.size,
        report.downloaded,
        report.kept
    );
}
