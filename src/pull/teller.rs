//! Tells the observer how far an output in order has come, on the thread that writes it.

use super::event::{Event, LayerProgress, TICK};
use crate::archive::plan::Plan;
use crate::counter::Counter;
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// What is under way, and how far it is.
pub(super) struct Teller<'t> {
    observer: RefCell<&'t mut dyn FnMut(&Event)>,
    pub downloaded: &'t Counter,
    /// Each blob is told when it went through.
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

    /// A plan's blobs are to go through, from the first on.
    pub fn start(&self, plan: &Plan) {
        self.total.set(plan.download_size());
        self.tell(&Event::Started {
            total: plan.download_size(),
            layers: plan.blobs().len(),
        });
    }

    /// A further stage, through which the blobs of this plan go. Unless `layers`, they were told
    /// before and are not told again.
    pub fn stage(&self, plan: &Plan, doing: &'static str, layers: bool) {
        let total = plan.download_size();
        self.done.set(0);
        self.total.set(total);
        self.layers.set(layers);
        self.tell(&Event::Stage { doing, total });
    }

    /// A blob's turn has come.
    pub fn begin(&self, plan: &Plan, layer: usize) {
        let descriptor = &plan.blobs()[layer].descriptor;
        self.layer.set(Some(LayerProgress {
            layer,
            digest: descriptor.digest,
            done: 0,
            size: descriptor.size,
        }));
    }

    /// So many more bytes went through.
    pub fn passed(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        if let Some(layer) = self.layer.get() {
            let done = layer.size.min(layer.done + bytes);
            self.layer.set(Some(LayerProgress { done, ..layer }));
        }
        self.tick();
    }

    /// Time passes.
    pub fn tick(&self) {
        if Instant::now() >= self.next.get() {
            self.next.set(Instant::now() + TICK);
            self.tell(&self.snapshot());
        }
    }

    /// The blob whose turn it was went through, and was right.
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
