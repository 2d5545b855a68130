//! The tests' registry as a program: `serve` for the demo, `push` to fill another registry with
//! images made on the spot.
//!
//!     registry serve [--port N] [--images demo] [--pace BYTES_PER_SECOND]
//!     registry push --to URL [--user U --password P] [--program PATH] NAME:TAG=SPEC...
//!
//! SPEC is `12x9267200` (layers x bytes of noise each), `12x9267200,seed=7`, or `program`: the
//! binary PATH alone, in the root directory, which the image runs.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, dead_code)]

#[path = "mod.rs"]
mod registry;

use registry::Registry;
use registry::image::{Blob, GZIP, Image, gzip, sha256};
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
    let _ = option("--images");
    match args.first().map(String::as_str) {
        Some("serve") => serve(
            port.map_or(0, |port| port.parse().unwrap()),
            pace.map_or(0, |pace| pace.parse().unwrap()),
        ),
        Some("push") => {
            let target = Target {
                base: to.expect("--to URL"),
                login: user.zip(password),
            };
            for spec in &args[1..] {
                let (name, spec) = spec.split_once('=').expect("NAME:TAG=SPEC");
                let (repository, tag) = name.rsplit_once(':').expect("NAME:TAG");
                target.push(repository, tag, &image(spec, program.as_deref()));
                println!("{name}");
            }
        }
        _ => panic!("registry serve | registry push"),
    }
}

fn image(spec: &str, program: Option<&str>) -> Image {
    if spec == "program" {
        return runnable(program.expect("--program PATH"));
    }
    let (spec, seed) = spec.split_once(",seed=").unwrap_or((spec, "0"));
    let (count, size) = spec.split_once('x').expect("LAYERSxBYTES");
    let seed: u64 = seed.parse().unwrap();
    let size: usize = size.parse().unwrap();
    Image::new(
        (0..count.parse().unwrap())
            .map(|layer| Blob::layer(seed * 100_000 + layer, size))
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

/// Serves until standard input ends or the process does.
fn serve(port: u16, pace: u64) {
    let registry = Registry::start_with(None, port);
    let layers = [9 << 20, 5 << 20, 3 << 20, 1 << 20, 200_000, 40_000];
    let image = Image::new(
        layers
            .iter()
            .enumerate()
            .map(|(seed, size)| Blob::layer(seed as u64, *size))
            .collect(),
    );
    image.push(&registry, "demo/hello", "latest");
    registry.pace(pace);
    println!("{}", registry.address);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Target {
    base: String,
    login: Option<(String, String)>,
}

impl Target {
    fn send(&self, request: minreq::Request) -> minreq::Response {
        let request = match &self.login {
            Some((user, password)) => {
                use base64::Engine as _;
                let login =
                    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                request.with_header("Authorization", format!("Basic {login}"))
            }
            None => request,
        };
        let response = request.send().unwrap();
        assert!(
            (200..300).contains(&response.status_code),
            "{}: {}",
            response.status_code,
            response.as_str().unwrap_or("")
        );
        response
    }

    /// The distribution specification's monolithic upload: POST, then PUT.
    fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            let begun = self.send(minreq::post(format!(
                "{}/v2/{repository}/blobs/uploads/",
                self.base
            )));
            let location = &begun
                .headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("location"))
                .unwrap()
                .1;
            let joint = if location.contains('?') { '&' } else { '?' };
            let full = if location.starts_with('/') {
                format!("{}{location}", self.base)
            } else {
                location.clone()
            };
            let put = minreq::put(format!("{full}{joint}digest={}", blob.digest));
            self.send(
                put.with_header("Content-Type", "application/octet-stream")
                    .with_body(blob.data()),
            );
        }
        let manifest = minreq::put(format!("{}/v2/{repository}/manifests/{tag}", self.base));
        self.send(
            manifest
                .with_header("Content-Type", image.media_type.as_str())
                .with_body(image.manifest()),
        );
    }
}
