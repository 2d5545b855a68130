//! The final files of an image as a tar, made of pulled layers.

use super::event::Event;
use super::inflate::{Inflate, Inflated};
use super::teller::Teller;
use crate::archive::plan::Plan;
use crate::archive::rootfs::{END, Flatten, Out};
use crate::archive::sink::stream::Layers;
use crate::error::{Error, Result};
use crate::registry::Client;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

/// Bytes that are read and written at once.
const BUFFER: usize = 64 << 10;
const READ_AGAIN: &str =
    "some files are replaced, but hard links to them are not: their layers are read once more";

/// Runs something with the layers of blobs, in order.
type Read<'r> =
    dyn FnMut(&[usize], &mut dyn FnMut(&mut dyn Layers) -> Result<()>) -> Result<()> + 'r;

/// An image being put together.
pub(super) struct Rootfs<'p> {
    plan: &'p Plan,
    inflate: Inflate,
    flatten: Flatten,
    /// The blobs of its layers, the top one first.
    blobs: Vec<usize>,
}

/// The image of a plan, if it has only one.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let one = plan.images().len() == 1;
    if one && plan.images().iter().all(|image| image.config().is_some()) {
        return Ok(());
    }
    Err(Error::unsupported(
        "a root file system is made of one image for one platform",
    ))
}

impl<'p> Rootfs<'p> {
    pub fn new(plan: &'p Plan, inflate: Inflate) -> Self {
        let layers = plan.images().iter().flat_map(|image| image.layers()).rev();
        let number = |digest| {
            plan.blobs()
                .iter()
                .position(|blob| blob.descriptor.digest == digest)
        };
        Self {
            plan,
            inflate,
            flatten: Flatten::default(),
            blobs: layers.filter_map(|layer| number(layer.digest)).collect(),
        }
    }

    /// Writes the tar. `read` runs something with the layers of these blobs, in order; twice, if
    /// some have to be read again.
    pub fn write(
        &mut self,
        out: &mut dyn Write,
        name: &Path,
        (teller, client): (&Teller<'_>, &Client),
        read: &mut Read<'_>,
    ) -> Result<()> {
        let failed = |error| Error::output(name, "writing to", error);
        let mut out = BufWriter::with_capacity(BUFFER, out);
        let mut put = |bytes: &[u8]| {
            teller.tick();
            if client.is_cancelled() {
                return Err(Error::Cancelled);
            }
            out.write_all(bytes).map_err(failed)
        };
        let blobs = std::mem::take(&mut self.blobs);
        read(&blobs, &mut |layers| {
            self.first(&blobs, layers, teller, &mut put)
        })?;
        let again = self.flatten.again()?;
        let order: Vec<usize> = again.iter().map(|layer| blobs[*layer]).collect();
        if !order.is_empty() {
            teller.tell(&Event::Note(READ_AGAIN.to_owned()));
            read(&order, &mut |layers| {
                for (layer, blob) in again.iter().zip(&order) {
                    let (mut opened, _) = self.opened(*blob, layers)?;
                    self.flatten.repeat(*layer, &mut opened, &mut put)?;
                }
                Ok(())
            })?;
        }
        put(&END)?;
        out.flush().map_err(failed)
    }

    /// Reads each layer once.
    fn first(
        &mut self,
        blobs: &[usize],
        layers: &mut dyn Layers,
        teller: &Teller<'_>,
        out: &mut Out<'_>,
    ) -> Result<()> {
        for (at, blob) in blobs.iter().enumerate() {
            let twice = blobs[..at].contains(blob);
            if !twice {
                teller.begin(self.plan, *blob);
            }
            let (mut opened, name) = self.opened(*blob, layers)?;
            self.flatten.layer(name, &mut opened, out)?;
            if !twice {
                teller.passed(self.plan.blobs()[*blob].descriptor.size);
                teller.end();
            }
        }
        Ok(())
    }

    /// A layer's uncompressed bytes, and its name.
    fn opened<'l>(
        &self,
        blob: usize,
        layers: &'l mut dyn Layers,
    ) -> Result<(BufReader<Inflated<'l>>, String)> {
        let inflated = self.inflate.checked(self.plan, blob, layers)?;
        let name = inflated.name().to_owned();
        Ok((BufReader::with_capacity(BUFFER, inflated), name))
    }
}
