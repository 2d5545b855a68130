//! The tests' registry as a program: `serve` for the demo, `push` to fill another registry with
//! images made on the spot.
//!
//!     registry serve [--port N] [--pace BYTES_PER_SECOND] [--address-file FILE] [--tls CA_FILE]
//!     registry push --to URL [--user U --password P] [--program PATH] NAME:TAG=SPEC...
//!
//! SPEC is `12x9267200` (layers x bytes of noise each), `12x9267200,seed=7`, or `program`: the
//! binary PATH alone, in the root directory, which the image runs. With --tls, the certificate of
//! the authority made for this run is written to CA_FILE.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, dead_code)]

mod push;
#[path = "mod.rs"]
mod registry;

use push::Target;
use registry::Registry;
use registry::image::{Blob, GZIP, Image, gzip, sha256};
use registry::tls::{Authority, Leaf};
use std::io::Read;

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.remove(at);
        Some(args.remove(at))
    };
    let (port, pace, to) = (option("--port"), option("--pace"), option("--to"));
    let (user, password, program) = (option("--user"), option("--password"), option("--program"));
    let (ca_file, address_file) = (option("--tls"), option("--address-file"));
    // There is one set of images so far.
    let _ = option("--images");
    match args.first().map(String::as_str) {
        Some("serve") => {
            let registry = start(port.map_or(0, |port| port.parse().unwrap()), ca_file);
            registry.pace(pace.map_or(0, |pace| pace.parse().unwrap()));
            serve(&registry, address_file);
        }
        Some("push") => {
            let target = Target {
                base: to.expect("--to URL"),
                login: user.zip(password),
            };
            for spec in &args[1..] {
                let (name, spec) = spec.split_once('=').expect("NAME:TAG=SPEC");
                let (repository, tag) = name.rsplit_once(':').expect("NAME:TAG");
                let image = layers(&target, repository, spec, program.as_deref());
                target.manifest(repository, tag, &image);
                println!("{name}");
            }
        }
        _ => panic!("registry serve | registry push"),
    }
}

/// Uploads an image's layers.
fn layers(target: &Target, repository: &str, spec: &str, program: Option<&str>) -> Image {
    if spec == "program" {
        let image = runnable(program.expect("--program PATH"));
        target.blob(repository, &image.layers[0]);
        return image;
    }
    let (spec, seed) = spec.split_once(",seed=").unwrap_or((spec, "0"));
    let (count, size) = spec.split_once('x').expect("LAYERSxBYTES");
    let seed: u64 = seed.parse().unwrap();
    let size = size.parse().unwrap();
    Image::new(
        (0..count.parse().unwrap())
            .map(|layer| target.layer(repository, seed * 100_000 + layer, size))
            .collect(),
    )
}

/// One static program, and a config that runs it.
fn runnable(path: &str) -> Image {
    let binary = std::fs::read(path).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    // Under its own name: busybox looks at what it is called.
    let name = std::path::Path::new(path)
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    builder.append_data(&mut header, name, &binary[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    let id = sha256(&tar);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Image::new(vec![Blob::bytes(GZIP, gzip(&tar), id.clone())]).with_config(&format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["/{name}"]}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}},"history":[{{"created_by":"the tests"}}]}}"#
    ))
}

fn start(port: u16, ca_file: Option<String>) -> Registry {
    let tls = ca_file.map(|file| {
        let authority = Authority::new();
        std::fs::write(file, &authority.pem).unwrap();
        authority.server(&Leaf::default())
    });
    Registry::start_with(tls, port)
}

/// Serves until standard input ends or the process does.
fn serve(registry: &Registry, address_file: Option<String>) {
    let layers = [9 << 20, 5 << 20, 3 << 20, 1 << 20, 200_000, 40_000];
    let image = Image::new(
        layers
            .iter()
            .enumerate()
            .map(|(seed, size)| Blob::layer(seed as u64, *size))
            .collect(),
    );
    image.push(registry, "demo/hello", "latest");
    if let Some(file) = address_file {
        std::fs::write(file, registry.address.to_string()).unwrap();
    }
    println!("{}", registry.address);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
