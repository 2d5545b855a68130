//! Where images go: the archives to make, each with its images.

use super::error::{Error, Result};
use super::flags::Low;
use super::list::lock::Row;
use super::output::{Outlet, with_suffix};
use dockersave::{Base, Platform, Reference};
use std::path::{Path, PathBuf};

/// An image that was asked for.
#[derive(Clone)]
pub(super) struct Wanted {
    pub reference: Reference,
    /// Its name in the archive if that is a different one.
    pub name: Option<Reference>,
    /// Its own platform.
    pub platform: Option<Platform>,
    /// The file name of an archive for it.
    pub file: Option<String>,
    /// What a lock says of it.
    pub locked: Option<Box<Row>>,
    /// The file and line that it was read from, or empty.
    pub origin: String,
}

impl Wanted {
    pub fn new(reference: Reference, origin: String) -> Self {
        Self {
            reference,
            name: None,
            platform: None,
            file: None,
            locked: None,
            origin,
        }
    }

    /// Whether it is the same image, wherever it was named.
    fn is_same(&self, other: &Self) -> bool {
        self.reference == other.reference
            && self.name == other.name
            && self.platform == other.platform
            && self.file == other.file
            && self.locked == other.locked
    }

    /// For messages about two images.
    fn shown(&self) -> String {
        match &*self.origin {
            "" => self.name().to_string(),
            origin => format!("{} ({origin})", self.name()),
        }
    }

    /// Its name in the archive.
    pub fn name(&self) -> &Reference {
        self.name.as_ref().unwrap_or(&self.reference)
    }
}

/// An archive to make, and its images.
#[derive(Clone)]
pub(super) struct Goal {
    pub images: Vec<Wanted>,
    pub target: Target,
}

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// The path beside which the partial output grows: the archive or directory, or the file that
    /// layers are pulled to before they are inflated into a directory.
    pub fn partial(&self, gunzip: bool) -> Option<PathBuf> {
        match self {
            Self::Directory(path) if gunzip => Some(with_suffix(path, ".tar")),
            target => target.path().map(Path::to_owned),
        }
    }

    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let (first, second) = match self {
            Self::File(path, beside) => (Some(path), beside.as_ref()),
            Self::Directory(path) => (Some(path), None),
            Self::Stream(..) | Self::Stdout => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// One archive for all images if its name is given, otherwise one for each; an image that is named
/// twice counts once.
pub(super) fn goals(low: &Low, images: Vec<Wanted>, base: Option<&Base>) -> Result<Vec<Goal>> {
    let mut distinct: Vec<Wanted> = Vec::new();
    for image in images {
        if !distinct.iter().any(|other| other.is_same(&image)) {
            distinct.push(image);
        }
    }
    let images = distinct;
    if low.output.is_some() || low.tarname.is_some() || low.no_tar && low.layers_dir.is_some() {
        // Images that a lock has in one archive may be in one elsewhere.
        let together = |image: &Wanted| image.locked.is_some() && image.file == images[0].file;
        let own = |image: &&Wanted| image.file.is_some() && !together(image);
        let apart = images.iter().find(own).or(images
            .iter()
            .find(|image| images[0].locked.is_some() && !together(image)));
        if let Some(image) = apart {
            let why =
                "names an archive of its own, but all images go into one; omit one of the names";
            return Err(Error::usage(&image.origin, why));
        }
        let target = target(low, &images[0], base);
        return Ok(vec![Goal { images, target }]);
    }
    if low.layers_dir.is_some() && images.len() > 1 {
        return Err(Error::usage(
            "--layers-dir",
            "is one directory, but each of these images gets an archive of its own; use --tarname for one archive",
        ));
    }
    let mut goals: Vec<Goal> = Vec::new();
    for image in images {
        let target = target(low, &image, base);
        if image.locked.is_some()
            && let Some(goal) = goals
                .iter_mut()
                .find(|goal| goal.images[0].locked.is_some() && goal.images[0].file == image.file)
        {
            goal.images.push(image);
            continue;
        }
        if let Some((other, path)) = goals.iter().find_map(|goal| meets(goal, &target)) {
            let why = format!(
                "{} and {} would both be written to {}; use --tarname for one archive, or pull them separately",
                other.shown(),
                image.shown(),
                path.display()
            );
            return Err(Error::usage("IMAGE", why));
        }
        let images = vec![image];
        goals.push(Goal { images, target });
    }
    Ok(goals)
}

/// The image and the path of a goal that collides with another target.
fn meets<'g>(goal: &'g Goal, target: &Target) -> Option<(&'g Wanted, &'g PathBuf)> {
    let partial = |path: &Path| with_suffix(path, ".partial");
    let own = goal.target.paths();
    let mut met = own.filter(|one| {
        target
            .paths()
            .any(|other| *one == other || **one == partial(other) || partial(one) == *other)
    });
    Some((&goal.images[0], met.next()?))
}

/// The place of an archive with this first image; one that lacks the layers of a base is named
/// after that, too.
pub(super) fn target(low: &Low, first: &Wanted, base: Option<&Base>) -> Target {
    let folder = low.working_dir.as_deref().unwrap_or(Path::new(""));
    let archive = match (&low.output, &low.tarname) {
        (Some(path), _) if path == Path::new("-") => return Target::Stdout,
        (Some(path), _) => path.clone(),
        (None, Some(name)) => folder.join(name),
        (None, None) => {
            let extension = if low.xz { "tar.xz" } else { "tar" };
            let kind = if low.rootfs { ".rootfs" } else { "" };
            let from = base.map_or(String::new(), |base| {
                format!("-from-{}", &base.digest().hex()[..12])
            });
            match &first.file {
                Some(name) => folder.join(name),
                None => folder.join(format!(
                    "{}{from}{kind}.{extension}",
                    first.name().archive_stem()
                )),
            }
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
