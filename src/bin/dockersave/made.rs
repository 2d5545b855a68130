//! The archives of a run, which lend their blobs to those after them.

use dockersave::Plan;
use std::path::{Path, PathBuf};

/// The archives of this run, and which blobs they have.
#[derive(Default)]
pub(super) struct Made {
    paths: Vec<PathBuf>,
    /// The start of each blob's digest, and which of the archives has it.
    blobs: Vec<(u64, usize)>,
}

impl Made {
    /// How many blobs are remembered, at most: a MiB of them.
    const MOST: usize = 1 << 16;

    /// What stands for the blobs of a plan.
    pub fn blobs(plan: &Plan) -> Vec<u64> {
        let paths = plan.entries().iter().filter(|entry| entry.is_downloaded());
        let hex = paths.filter_map(|entry| entry.path().rsplit('/').next()?.get(..16));
        hex.filter_map(|hex| u64::from_str_radix(hex, 16).ok())
            .collect()
    }

    /// The archives that may have blobs of a plan. Of these a pull opens only a few, the last ones:
    /// those that are known to have some.
    pub fn lenders(&self, blobs: &[u64]) -> Vec<PathBuf> {
        let has = |blob: &u64| self.blobs.iter().rfind(|(known, _)| known == blob);
        let mut found: Vec<usize> = (0..self.paths.len()).collect();
        for (_, archive) in blobs.iter().filter_map(has) {
            found.retain(|other| other != archive);
            found.push(*archive);
        }
        let paths = found.into_iter();
        paths
            .filter_map(|number| self.paths.get(number).cloned())
            .collect()
    }

    pub fn add(&mut self, path: &Path, blobs: Vec<u64>) {
        let archive = self.paths.len();
        self.paths.push(path.to_owned());
        let room = Self::MOST.saturating_sub(self.blobs.len());
        self.blobs
            .extend(blobs.into_iter().take(room).map(|blob| (blob, archive)));
    }
}
