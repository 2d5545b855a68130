//! Reports the progress of a sequential output to the observer, on the writing thread.

use super::event::{Event, LayerProgress, TICK};
use crate::archive::plan::Plan;
use crate::counter::Counter;
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// The current blob and its progress.
pub(super) struct Teller<'t> {
    observer: RefCell<&'t mut dyn FnMut(&Event)>,
    pub downloaded: &'t Counter,
    /// Whether to report each finished blob.
    layers: Cell<bool>,
    done: Cell<u64>,
    total: Cell<u64>,
    layer: Cell<Option<LayerProgress>>,
    next: Cell<Instant>,
}

impl<'t> Teller<'t> {
    pub fn new(observer: &'t mut dyn FnMut(&Event), downloaded: &'t Counter) -> Self {
        Self {
            observer: RefCell::new(observer),
            downloaded,
            layers: Cell::new(true),
            done: Cell::new(0),
            total: Cell::new(0),
            layer: Cell::default(),
            next: Cell::new(Instant::now() + TICK),
        }
    }

    pub fn tell(&self, event: &Event) {
        (self.observer.borrow_mut())(event);
    }

    /// Starts reporting on a plan's blobs.
    pub fn start(&self, plan: &Plan) {
        self.total.set(plan.download_size());
        self.tell(&Event::Started {
            total: plan.download_size(),
            layers: plan.blobs().len(),
        });
    }

    /// Starts another stage for the blobs of this plan. Without `layers`, they are not reported
    /// again.
    pub fn stage(&self, plan: &Plan, doing: &'static str, layers: bool) {
        let total = plan.download_size();
        self.done.set(0);
        self.total.set(total);
        self.layers.set(layers);
        self.tell(&Event::Stage { doing, total });
    }

    /// Starts a blob.
    pub fn begin(&self, plan: &Plan, layer: usize) {
        let descriptor = &plan.blobs()[layer].descriptor;
        self.layer.set(Some(LayerProgress {
            layer,
            digest: descriptor.digest,
            done: 0,
            size: descriptor.size,
        }));
    }

    /// Counts bytes.
    pub fn passed(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        if let Some(layer) = self.layer.get() {
            let done = layer.size.min(layer.done + bytes);
            self.layer.set(Some(LayerProgress { done, ..layer }));
        }
        self.tick();
    }

    /// Reports progress if it is time to.
    pub fn tick(&self) {
        if Instant::now() >= self.next.get() {
            self.next.set(Instant::now() + TICK);
            self.tell(&self.snapshot());
        }
    }

    /// The current blob is finished and verified.
    pub fn end(&self) {
        if let Some(layer) = self.layer.take()
            && self.layers.get()
        {
            self.tell(&Event::Layer {
                layer: layer.layer,
                digest: layer.digest,
                size: layer.size,
                kept: 0,
            });
        }
    }

    pub fn snapshot(&self) -> Event {
        Event::Progress {
            done: self.done.get(),
            total: self.total.get(),
            downloaded: self.downloaded.get(),
            active: self.layer.get().into_iter().collect(),
        }
    }
}
