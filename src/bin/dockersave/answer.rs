//! Parts of JSON answers that several commands give: an archive, its images, layers, signatures.

use super::json::{Object, array};
use super::list::lock::Row;
use dockersave::{Image, Missing, Platform, Verified};
use std::path::Path;

/// Signatures that count, as JSON.
pub(super) fn signatures(list: &[Verified]) -> String {
    let items = list.iter().map(|one| {
        Object::new()
            .text("key", &one.key)
            .text("covers", &one.covers.to_string())
            .text("form", one.form.name())
            .text("predicateType", &one.predicate)
            .maybe("identity", one.identity.as_deref())
            .raw("claims", &texts(&one.claims))
            .finish()
    });
    array(&items.collect::<Vec<_>>())
}

/// The images of an archive, as JSON.
pub(super) fn members(images: &[Image]) -> String {
    let items = images.iter().map(|image| {
        let object = Object::new()
            .text("reference", &image.reference().to_string())
            .maybe("name", image.name().full_tag().as_deref())
            .text("digest", &image.manifest().digest().to_string())
            .maybe(
                "platform",
                image.platform().map(Platform::to_string).as_deref(),
            );
        match image.signatures() {
            [] => object,
            list => object.raw("signatures", &signatures(list)),
        }
        .finish()
    });
    array(&items.collect::<Vec<_>>())
}

/// The images of an archive that is as a lock says, as JSON.
pub(super) fn rows(rows: &[Row]) -> String {
    let items = rows.iter().map(|row| {
        let name = row.name.as_ref().unwrap_or(&row.reference);
        Object::new()
            .text("reference", &row.reference.to_string())
            .maybe("name", name.full_tag().as_deref())
            .text("digest", &row.manifest.to_string())
            .maybe(
                "platform",
                row.platform.as_ref().map(Platform::to_string).as_deref(),
            )
            .finish()
    });
    array(&items.collect::<Vec<_>>())
}

/// The layers that a thin archive lacks, as JSON.
pub(super) fn missing(layers: &[Missing]) -> String {
    let items = layers.iter().map(|one| {
        Object::new()
            .text("digest", &one.digest.to_string())
            .number("size", one.size)
            .maybe("diffId", one.diff_id.map(|id| id.to_string()).as_deref())
            .finish()
    });
    array(&items.collect::<Vec<_>>())
}

/// An existing or planned archive, and its size if known.
pub(super) fn archive(path: &Path, bytes: Option<u64>, images: &str) -> Object {
    Object::new()
        .text("path", &path.to_string_lossy())
        .raw("size", &known(bytes, "null"))
        .raw("images", images)
}

/// A number of bytes, or null.
pub(super) fn known(bytes: Option<u64>, none: &str) -> String {
    bytes.map_or(none.to_owned(), |bytes| bytes.to_string())
}

/// An object of texts.
pub(super) fn texts(pairs: &[(String, String)]) -> String {
    let object = pairs.iter().fold(Object::new(), |object, (name, text)| {
        object.text(name, text)
    });
    object.finish()
}
