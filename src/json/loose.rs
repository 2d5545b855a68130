//! Values of any type: unused parts of a document need not be valid.

use super::Skip;
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, Result, make_place};

make_place!(Place);

/// An object; `None` for null or another type.
pub(crate) struct Loose<T>(pub Option<T>);

impl<T: Deserialize> Visitor for Place<Loose<T>> {
    fn null(&mut self) -> Result<()> {
        self.out = Some(Loose(None));
        Ok(())
    }
    fn boolean(&mut self, _: bool) -> Result<()> {
        self.null()
    }
    fn string(&mut self, _: &str) -> Result<()> {
        self.null()
    }
    fn negative(&mut self, _: i64) -> Result<()> {
        self.null()
    }
    fn nonnegative(&mut self, _: u64) -> Result<()> {
        self.null()
    }
    fn float(&mut self, _: f64) -> Result<()> {
        self.null()
    }
    fn seq(&mut self) -> Result<Box<dyn Seq + '_>> {
        self.null()?;
        Ok(Box::new(Skip))
    }
    fn map(&mut self) -> Result<Box<dyn Map + '_>> {
        T::begin(&mut self.out.insert(Loose(None)).0).map()
    }
}

impl<T: Deserialize> Deserialize for Loose<T> {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
    fn default() -> Option<Self> {
        Some(Loose(None))
    }
}

/// A list of strings; empty for another type.
pub(crate) struct LooseTexts(pub Vec<super::Text>);

impl Visitor for Place<LooseTexts> {
    fn null(&mut self) -> Result<()> {
        self.out = Some(LooseTexts(Vec::new()));
        Ok(())
    }
    fn boolean(&mut self, _: bool) -> Result<()> {
        self.null()
    }
    fn string(&mut self, _: &str) -> Result<()> {
        self.null()
    }
    fn negative(&mut self, _: i64) -> Result<()> {
        self.null()
    }
    fn nonnegative(&mut self, _: u64) -> Result<()> {
        self.null()
    }
    fn float(&mut self, _: f64) -> Result<()> {
        self.null()
    }
    fn seq(&mut self) -> Result<Box<dyn Seq + '_>> {
        Ok(Box::new(Texts {
            list: &mut self.out.insert(LooseTexts(Vec::new())).0,
            next: None,
        }))
    }
    fn map(&mut self) -> Result<Box<dyn Map + '_>> {
        self.null()?;
        Ok(Box::new(Skip))
    }
}

struct Texts<'l> {
    list: &'l mut Vec<super::Text>,
    next: Option<super::Text>,
}

impl Seq for Texts<'_> {
    fn element(&mut self) -> Result<&mut dyn Visitor> {
        self.list.extend(self.next.take());
        Ok(Deserialize::begin(&mut self.next))
    }
    fn finish(&mut self) -> Result<()> {
        self.list.extend(self.next.take());
        Ok(())
    }
}

impl Deserialize for LooseTexts {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
    fn default() -> Option<Self> {
        Some(LooseTexts(Vec::new()))
    }
}
