//! Questions: each answer goes to standard output, and nothing else does.

use super::flags::Query;
use super::options::Options;
use super::print;
use super::progress::size;
use crate::error::Result;
use crate::manifest::Kinds;
use crate::{Client, Content, Plan, PlanOptions, Platform};
use std::fmt::Write as _;

pub(super) fn answer(query: Query, client: &Client, options: &Options) -> Result<()> {
    let reference = &options.references[0];
    let repository = client.repository(reference)?;
    match query {
        Query::Tags => {
            for tag in repository.tags() {
                // One at a time: a repository may have a hundred thousand.
                print(&format!("{}\n", crate::error::printable(&tag?, 128)))?;
            }
            Ok(())
        }
        Query::Sha if options.platform.is_none() => {
            print(&format!("{}\n", repository.manifest()?.digest()))
        }
        Query::Sha => print(&format!(
            "{}\n",
            repository
                .image(options.platform.as_ref())?
                .manifest()
                .digest()
        )),
        Query::Metadata => {
            let document = match &options.platform {
                None => repository.manifest()?,
                Some(platform) => repository.image(Some(platform))?.manifest().clone(),
            };
            print(&format!(
                "{}\n",
                String::from_utf8_lossy(document.bytes()).trim_end()
            ))
        }
        Query::Platforms => {
            let document = repository.manifest()?;
            let mut text = String::new();
            for candidate in repository.candidates(&document)? {
                let child = repository.child(&candidate.descriptor, Kinds::Images)?;
                let platform = candidate
                    .platform
                    .map_or("unknown".to_owned(), |platform| told(&platform));
                let _ = writeln!(
                    text,
                    "{platform}\t{}\t{}",
                    candidate.descriptor.digest,
                    total(child.content())
                );
            }
            if let Content::Manifest { .. } = document.content() {
                let (digest, bytes) = (*document.digest(), total(document.content()));
                let image = repository.complete(document)?;
                let platform = image.platform().map_or("unknown".to_owned(), told);
                let _ = writeln!(text, "{platform}\t{digest}\t{bytes}");
            }
            print(&text)
        }
        Query::DryRun => {
            let image = repository.image(options.platform.as_ref())?;
            let plan = Plan::new(&[image], &PlanOptions::default())?;
            let mut text = String::new();
            for entry in plan.entries() {
                let from = if entry.is_downloaded() {
                    "download"
                } else {
                    "known"
                };
                let _ = writeln!(text, "{from}\t{}\t{}", entry.size(), entry.path());
            }
            let _ = writeln!(
                text,
                "{} to download, an archive of {}",
                size(plan.download_size()),
                size(plan.size())
            );
            print(&text)
        }
    }
}

fn told(platform: &Platform) -> String {
    crate::error::printable(&platform.to_string(), 128)
}

fn total(content: &Content) -> u64 {
    match content {
        Content::Manifest { layers, .. } => layers.iter().map(|layer| layer.size).sum(),
        Content::Index(_) => 0,
    }
}
