//! The tests' registry as a program: `serve` for the demo and the bench, `push` to fill another
//! registry with images made on the spot.
//!
//!     registry serve [--port N] [--pace BYTES_PER_SECOND] [--address-file FILE] [--tls CA_FILE]
//!                    [--fault slow-range|resets|busy] [NAME:TAG=SPEC...]
//!     registry push --to URL [--user U --password P] [--program PATH] NAME:TAG=SPEC...
//!
//! SPEC is `12x9267200` (layers x bytes of noise each), `12x9267200,seed=7`, `program` (the binary
//! PATH in the root directory, which the image runs), or several of these joined by `+`. With
//! `docker:` before it the media types are Docker's; with `platforms:` it is an index of that image
//! for this machine and for one other, an attestation beside each. What is served is `12x9267200`
//! or `zeros:BYTES`: one layer of zeros, never in memory. With --tls, the certificate of the
//! authority made for this run is written to CA_FILE.
//!
//! --fault: every second range comes at a byte a second; every second connection is reset within
//! each blob; above two requests at once, 429.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, dead_code)]

mod push;
#[path = "mod.rs"]
mod registry;

use push::Target;
use registry::image::{Blob, GZIP, Image, OCI_INDEX, gzip, platform, sha256};
use registry::tls::{Authority, Leaf};
use registry::{Action, Fault, Registry, Reply};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

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
    let fault = option("--fault");
    match args.first().map(String::as_str) {
        Some("serve") => {
            let registry = start(port.map_or(0, |port| port.parse().unwrap()), ca_file);
            registry.pace(pace.map_or(0, |pace| pace.parse().unwrap()));
            if let Some(fault) = fault.as_deref().map(misbehaviour) {
                registry.faults(fault);
            }
            fill(&registry, &args[1..]);
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
                push(&target, repository, tag, spec, program.as_deref());
                println!("{name}");
            }
        }
        _ => panic!("registry serve | registry push"),
    }
}

/// Uploads what SPEC says, and tags it.
fn push(target: &Target, repository: &str, tag: &str, spec: &str, program: Option<&str>) {
    let Some(spec) = spec.strip_prefix("platforms:") else {
        let of_docker = spec.strip_prefix("docker:");
        let spec = of_docker.unwrap_or(spec);
        let image = image(target, repository, spec, program, here());
        let image = match of_docker {
            Some(_) => image.docker(),
            None => image,
        };
        target.manifest(repository, tag, &image);
        return;
    };
    let other = if here() == "arm64" { "amd64" } else { "arm64" };
    let mut entries = Vec::new();
    for architecture in [here(), other] {
        let image = image(target, repository, spec, program, architecture);
        // As BuildKit makes them: for an unknown platform, with a reference to what they are about.
        let statement = format!(r#"{{"_type":"statement","subject":"{architecture}"}}"#);
        let kind = "application/vnd.in-toto+json";
        let id = sha256(statement.as_bytes());
        let statement = Blob::bytes(kind, statement.into_bytes(), id);
        target.blob(repository, &statement);
        let attestation = Image::for_platform("unknown", "", vec![statement]);
        for image in [&image, &attestation] {
            target.manifest(repository, &image.digest(), image);
        }
        let about = format!(
            r#","annotations":{{"vnd.docker.reference.digest":"{}","vnd.docker.reference.type":"attestation-manifest"}}}}"#,
            image.digest()
        );
        let entry = attestation.entry(&platform("unknown", "unknown", ""));
        entries.push(image.entry(&platform("linux", architecture, "")));
        entries.push(entry.strip_suffix('}').unwrap().to_owned() + &about);
    }
    target.document(
        repository,
        tag,
        OCI_INDEX,
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
            entries.join(",")
        ),
    );
}

/// Uploads an image's layers.
fn image(
    target: &Target,
    repository: &str,
    spec: &str,
    program: Option<&str>,
    architecture: &str,
) -> Image {
    let (mut layers, mut entry) = (Vec::new(), String::new());
    for part in spec.split('+') {
        if part == "program" {
            let path = Path::new(program.expect("--program PATH"));
            // Under its own name: busybox looks at what it is called.
            let name = path.file_name().unwrap().to_str().unwrap();
            entry = format!(r#""Entrypoint":["/{name}"]"#);
            layers.push(program_layer(path, name));
            target.blob(repository, layers.last().unwrap());
            continue;
        }
        let (part, seed) = part.split_once(",seed=").unwrap_or((part, "0"));
        let (count, size) = part.split_once('x').expect("LAYERSxBYTES");
        let seed: u64 = seed.parse().unwrap();
        let size = size.parse().unwrap();
        let count: u64 = count.parse().unwrap();
        layers.extend((0..count).map(|n| target.layer(repository, seed * 100_000 + n, size)));
    }
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("{:?}", layer.diff_id))
        .collect();
    Image::new(layers).with_config(&format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{{entry}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    ))
}

/// A layer with one static program.
fn program_layer(path: &Path, name: &str) -> Blob {
    let binary = std::fs::read(path).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, name, &binary[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    Blob::bytes(GZIP, gzip(&tar), sha256(&tar))
}

/// This machine's architecture as images name it.
fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn start(port: u16, ca_file: Option<String>) -> Registry {
    let tls = ca_file.map(|file| {
        let authority = Authority::new();
        std::fs::write(file, &authority.pem).unwrap();
        authority.server(&Leaf::default())
    });
    Registry::start_with(tls, port).lenient()
}

fn misbehaviour(name: &str) -> Fault {
    let blobs = |action| Fault::new("/blobs/", action).always();
    match name {
        "slow-range" => blobs(Action::Drip(Duration::from_secs(1)))
            .ranges()
            .every(2),
        "resets" => blobs(Action::Reset(1 << 20)).odd_connections(),
        "busy" => blobs(Action::Reply(Reply::new(429, ""))).above(2),
        other => panic!("no fault {other}"),
    }
}

/// Puts images as they are named, or the demo's.
fn fill(registry: &Registry, specs: &[String]) {
    for spec in specs {
        let (name, spec) = spec.split_once('=').expect("NAME:TAG=SPEC");
        let (repository, tag) = name.rsplit_once(':').expect("NAME:TAG");
        let layers = if let Some(size) = spec.strip_prefix("zeros:") {
            vec![Blob::zeros(size.parse().unwrap())]
        } else {
            let (count, size) = spec.split_once('x').expect("LAYERSxBYTES");
            let seeds = 0..count.parse().unwrap();
            seeds
                .map(|seed| Blob::layer(seed, size.parse().unwrap()))
                .collect()
        };
        Image::new(layers).push(registry, repository, tag);
    }
    if specs.is_empty() {
        demo(registry);
    }
}

fn demo(registry: &Registry) {
    let layers = [9 << 20, 5 << 20, 3 << 20, 1 << 20, 200_000, 40_000];
    let image = Image::new(
        layers
            .iter()
            .enumerate()
            .map(|(seed, size)| Blob::layer(seed as u64, *size))
            .collect(),
    );
    image.push(registry, "demo/hello", "latest");
}

/// Serves until standard input ends or the process does.
fn serve(registry: &Registry, address_file: Option<String>) {
    if let Some(file) = address_file {
        std::fs::write(file, registry.address.to_string()).unwrap();
    }
    println!("{}", registry.address);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
