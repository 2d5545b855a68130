//! Lists the platforms of an image and their sizes, with a client that looks at nothing but its
//! options: no environment, no files of other tools, no credential helpers.
//!
//!     cargo run --example inspect -- debian:12

use dockersave::{Client, ClientBuilder, Reference};

#[allow(dead_code, clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = std::env::args().nth(1).ok_or("usage: inspect IMAGE")?;
    for line in inspect(Client::bare(), &image)? {
        println!("{line}");
    }
    Ok(())
}

/// A line for each platform.
pub fn inspect(builder: ClientBuilder, image: &str) -> dockersave::Result<Vec<String>> {
    let client = builder.build()?;
    let reference: Reference = image.parse()?;
    let found = client.repository(&reference)?.platforms()?;
    let lines = found.images.iter().map(|image| {
        let platform = image.platform.as_ref();
        let platform = platform.map_or("unknown".to_owned(), ToString::to_string);
        match image.size {
            Some(size) => format!("{platform}: {size} bytes"),
            None => format!("{platform}: not in this registry"),
        }
    });
    Ok(lines.collect())
}
