//! Queries: the answer goes to standard output, as text or as one JSON value, whose members are in
//! [`super::manual`].

use super::answer::{archive, known, members, missing, texts};
use super::error::Result;
use super::flags::Query;
use super::json::{Object, array, ascii, document_for_terminal, document_in_ascii};
use super::options::Options;
use super::place::{Goal, Target};
use super::progress::size;
use super::{Shown, check, lock, print, print_bytes, print_json, pull};
use dockersave::text::{printable, without_secrets};
use dockersave::{Client, Content, Platform, Repository};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

pub(super) fn answer(
    query: Query,
    client: &Client,
    options: &Options,
    shown: &Shown,
) -> Result<()> {
    // Output may go to the same terminal.
    lock(shown).lines_only();
    let repository = client.repository(options.reference())?;
    match query {
        Query::Tags => tags(repository, options.low.json),
        Query::Sha => sha(&repository, options),
        Query::Metadata => metadata(&repository, options),
        Query::Config => config(&repository, options),
        Query::Platforms => platforms(&repository, options.low.json),
        Query::Referrers => referrers(&repository, options),
        Query::DryRun => pull::each(options, shown, Vec::new(), &mut |goal| {
            let answer = dry_run(client, options, goal, shown)?;
            Ok(answer.into_iter().collect())
        }),
        Query::Check => check::run(client, options, shown),
    }
}

/// Tags are buffered up to this many bytes.
const TOGETHER: usize = 16 << 10;

/// Prints tags as they arrive: a repository may have a hundred thousand. Tags that arrive together
/// are written together.
fn tags(repository: Repository<'_>, json: bool) -> Result<()> {
    let mut text = String::new();
    if json {
        let name = repository.reference().name();
        let head = Object::new().text("repository", &name).raw("tags", "[");
        text.push_str(head.open());
    }
    let mut comma = "";
    let mut tags = repository.tags();
    loop {
        let tag = tags.next();
        if let Some(Ok(tag)) = &tag {
            match json {
                true => {
                    text.push_str(comma);
                    text.push_str(&ascii(tag));
                    comma = ",\n";
                }
                false => {
                    text.push_str(tag);
                    text.push('\n');
                }
            }
            if tags.is_at_hand() && text.len() < TOGETHER {
                continue;
            }
        } else if json && tag.is_none() {
            text.push_str("]}\n");
        }
        match json {
            true => print_json(&text)?,
            false => print(&text)?,
        }
        text.clear();
        match tag {
            Some(tag) => drop(tag?),
            None => return Ok(()),
        }
    }
}

fn sha(repository: &Repository<'_>, options: &Options) -> Result<()> {
    let platform = options.platform.as_ref();
    let digest = repository.digest(platform)?.to_string();
    if !options.low.json {
        return print(&format!("{digest}\n"));
    }
    let object = named(repository, platform).text("digest", &digest);
    print_json(&(object.finish() + "\n"))
}

/// The queried repository or image.
fn named(repository: &Repository<'_>, platform: Option<&Platform>) -> Object {
    Object::new()
        .text("reference", &repository.reference().to_string())
        .maybe("platform", platform.map(Platform::to_string).as_deref())
}

/// A document in pieces of some tens of KiB, cut where no secret is split.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    const PIECE: usize = 64 << 10;
    const AROUND: usize = 2 << 10;
    let whole = |text: &str, mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    std::iter::from_fn(move || {
        let good = |at: &usize| {
            let around = &text[whole(text, at - AROUND)..whole(text, at + AROUND)];
            without_secrets(around) == around
        };
        let cuts = (PIECE..text.len().saturating_sub(AROUND)).step_by(AROUND);
        let cut = cuts.map(|at| whole(text, at)).find(good);
        let (piece, rest) = text.split_at(cut.unwrap_or(text.len()));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn metadata(repository: &Repository<'_>, options: &Options) -> Result<()> {
    let platform = options.platform.as_ref();
    let document = match platform {
        None => repository.manifest()?,
        Some(platform) => repository.manifest_for(platform)?,
    };
    let object = named(repository, platform)
        .text("digest", &document.digest().to_string())
        .text("mediaType", document.media_type())
        .number("size", document.bytes().len() as u64)
        .raw("manifest", "");
    print_document(document.bytes(), options.low.json.then_some(object))
}

/// The config of an image, as the registry has it.
fn config(repository: &Repository<'_>, options: &Options) -> Result<()> {
    let platform = options.platform.as_ref();
    let image = repository.image(platform)?;
    let mut object = named(repository, platform);
    if let Content::Manifest { config, .. } = image.manifest().content() {
        object = object
            .text("digest", &config.digest.to_string())
            .number("size", config.size);
    }
    let json = options.low.json.then(|| object.raw("config", ""));
    print_document(image.config().unwrap_or_default(), json)
}

/// Prints a document, or as the last member of an object.
fn print_document(bytes: &[u8], object: Option<Object>) -> Result<()> {
    // In pieces: a copy of the largest manifest would take half of the memory.
    let text = String::from_utf8_lossy(bytes);
    let Some(object) = object else {
        // A file or a program gets the registry's own bytes, whose digest can be computed.
        let terminal = std::io::stdout().is_terminal();
        for piece in pieces(text.trim_end()) {
            let shown = match terminal {
                true => Cow::Owned(document_for_terminal(piece)),
                false => Cow::Borrowed(piece),
            };
            print_bytes(without_secrets(&shown).as_bytes())?;
        }
        return print("\n");
    };
    print_json(object.open())?;
    for piece in pieces(text.trim()) {
        print_json(&document_in_ascii(piece))?;
    }
    print("}\n")
}

fn platforms(repository: &Repository<'_>, json: bool) -> Result<()> {
    let found = repository.platforms()?;
    if !json {
        let mut text = String::new();
        for one in &found.images {
            let platform = one
                .platform
                .as_ref()
                .map_or("unknown".to_owned(), |p| printable(&p.to_string(), 128));
            let size = known(one.size, "-");
            let _ = writeln!(text, "{platform}\t{}\t{size}", one.digest);
        }
        return print(&text);
    }
    let items: Vec<String> = found
        .images
        .iter()
        .map(|one| {
            let platform = one.platform.as_ref().map(Platform::to_string);
            Object::new()
                .maybe("platform", platform.as_deref())
                .text("digest", &one.digest.to_string())
                .raw("size", &known(one.size, "null"))
                .finish()
        })
        .collect();
    let object = Object::new()
        .text("reference", &repository.reference().to_string())
        .text("digest", &found.digest.to_string())
        .raw("platforms", &array(&items));
    print_json(&(object.finish() + "\n"))
}

/// What refers to a manifest.
fn referrers(repository: &Repository<'_>, options: &Options) -> Result<()> {
    let platform = options.platform.as_ref();
    let digest = repository.digest(platform)?;
    let list = repository.referrers(&digest)?;
    if !options.low.json {
        let mut text = String::new();
        for one in &list {
            let kind = match one.artifact_type.as_str() {
                "" => &one.descriptor.media_type,
                kind => kind,
            };
            let (kind, descriptor) = (printable(kind, 128), &one.descriptor);
            let _ = writeln!(text, "{kind}\t{}\t{}", descriptor.digest, descriptor.size);
        }
        return print(&text);
    }
    let items = list.iter().map(|one| {
        Object::new()
            .text("artifactType", &one.artifact_type)
            .text("mediaType", &one.descriptor.media_type)
            .text("digest", &one.descriptor.digest.to_string())
            .number("size", one.descriptor.size)
            .raw("annotations", &texts(&one.annotations))
            .finish()
    });
    let object = named(repository, platform)
        .text("digest", &digest.to_string())
        .raw("referrers", &array(&items.collect::<Vec<_>>()));
    print_json(&(object.finish() + "\n"))
}

/// The plan of a pull, and how much of it is already here.
fn dry_run(
    client: &Client,
    options: &Options,
    goal: &mut Goal,
    shown: &Shown,
) -> Result<Option<String>> {
    if goal.target.path().is_some() {
        pull::check(options, goal)?;
    }
    let thin = pull::plan(client, options, goal, shown)?;
    let (left_out, above) = (thin.missing(), thin.above());
    // With --gunzip all layers are measured, also those that are left out.
    let full = match options.low.gunzip {
        true => Some(thin.whole()?),
        false => None,
    };
    let mut pull = pull::configured(client, thin, options);
    if let Target::File(_, Some(beside)) = &goal.target {
        pull = pull.directory(beside);
    }
    lock(shown).busy("checking what is there");
    let preview = match &goal.target {
        Target::File(path, _) => pull.preview_file(path),
        Target::Directory(path) => pull.preview_directory(path),
        Target::Stream(..) | Target::Stdout => pull.preview_writer(),
    }?;
    // Before anything is printed in its place.
    lock(shown).end();
    let plan = full.as_ref().unwrap_or_else(|| pull.plan());
    let (left, kept) = (preview.download(), preview.here());
    // The size after inflating and compressing is not known in advance.
    let known_before = !options.low.gunzip && !options.low.xz && !options.low.rootfs;
    let whole = known_before.then_some(plan.size());
    let path = match &goal.target {
        Target::File(path, _) | Target::Directory(path) | Target::Stream(_, path) => path.clone(),
        Target::Stdout => "-".into(),
    };
    if options.low.json {
        let layers: Vec<String> = preview
            .blobs
            .iter()
            .map(|blob| {
                Object::new()
                    .text("digest", &blob.digest.to_string())
                    .number("size", blob.size)
                    .number("here", blob.here)
                    .finish()
            })
            .collect();
        let unchanged = if preview.unchanged { "true" } else { "false" };
        let mut object = archive(&path, whole, &members(plan.images()))
            .raw("unchanged", unchanged)
            .number("download", left)
            .number("here", kept)
            .raw("layers", &array(&layers));
        if options.base.is_some() {
            object = object
                .raw("missing", &missing(&left_out))
                .number("above", above);
        }
        return Ok(Some(object.finish()));
    }
    let mut text = String::new();
    let mut blobs = preview.blobs.iter();
    for entry in plan.entries() {
        let here = match entry.is_downloaded() {
            true => blobs.next().map(|blob| blob.here),
            false => preview.document(entry.path()).map(|blob| blob.here),
        };
        let (what, rest) = match here {
            // They are in the archive, and not among the image's files.
            None if options.low.rootfs => continue,
            None => ("known", String::new()),
            Some(here) if here == entry.size() => ("here", String::new()),
            Some(0) => ("download", String::new()),
            Some(here) => ("partly", format!("\t{here} here")),
        };
        let _ = writeln!(text, "{what}\t{}\t{}{rest}", entry.size(), entry.path());
    }
    for one in &left_out {
        let _ = writeln!(text, "left out\t{}\t{}", one.size, one.digest.path());
    }
    if preview.unchanged {
        let _ = writeln!(text, "{} is unchanged", path.display());
        return print(&text).map(|()| None);
    }
    let kept = match kept {
        0 => String::new(),
        kept => format!(", {} are here", size(kept)),
    };
    let _ = writeln!(
        text,
        "{} to download{kept}, an archive of {}: {}",
        size(left),
        whole.map_or("unknown size".to_owned(), size),
        path.display()
    );
    print(&text).map(|()| None)
}
