//! TLS: who is trusted, and the messages when verification fails.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::registry::tls::{self, Authority, Leaf};
use crate::util::{Dir, Run};

#[test]
fn a_pull_over_tls_resumes_and_is_small() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = Image::new((0..4).map(|seed| Blob::layer(seed, 2 << 20)).collect());
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    registry.fault(
        &image.layers[2].digest,
        crate::registry::Action::Reset(1_000_000),
    );
    let archive = Run::new(&dir, &["--cacert", &ca, &registry.name("r")]).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    archive.outcome.is_small();
    let name = format!("localhost:{}/r", registry.address.port());
    let dir = Dir::new();
    Run::new(&dir, &["--cacert", &ca, &name, "--jobs", "1"]).archive();
}

#[test]
fn certificates_that_are_not_trusted_are_explained() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let ca = dir.write("ca.pem", &authority.pem);
    let year = |from, until| Leaf {
        from,
        until,
        ..Leaf::default()
    };
    for (leaf, trust, words) in [
        (Leaf::default(), false, "--cacert"),
        (
            year((2019, 1, 1), (2020, 2, 3)),
            true,
            "expired on 2020-02-03",
        ),
        (
            year((2098, 1, 1), (2099, 1, 1)),
            true,
            "valid from 2098-01-01 on, but this system's clock says",
        ),
        (
            Leaf {
                names: vec!["other.example".into()],
                ..Leaf::default()
            },
            true,
            "other.example",
        ),
    ] {
        let registry = Registry::start_tls(authority.server(&leaf));
        Image::small(1).push(&registry, "r", "latest");
        let run = Run::new(&dir, &[&registry.name("r")]);
        let run = if trust {
            run.args(&["--cacert", &ca])
        } else {
            run
        };
        let outcome = run.fails(1, words);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        Run::new(&dir, &["--tls-skip-verify", &registry.name("r")]).archive();
        std::fs::remove_file(dir.join("r-latest.tar")).unwrap();
    }
}

#[test]
fn a_date_stands_for_the_clock() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let ca = dir.write("ca.pem", &authority.pem);
    let leaf = Leaf {
        from: (2098, 1, 1),
        until: (2099, 1, 1),
        ..Leaf::default()
    };
    let registry = Registry::start_tls(authority.server(&leaf));
    Image::small(1).push(&registry, "r", "latest");
    let on = |date| {
        Run::new(
            &dir,
            &["--cacert", &ca, &registry.name("r"), "--date", date],
        )
    };
    on("2097-12-31").fails(1, "the given date is 2097-12-31: set the clock, or");
    for date in ["2098-01-01", "2098-12-30"] {
        on(date).archive();
        std::fs::remove_file(dir.join("r-latest.tar")).unwrap();
    }
    on("2099-02-01").fails(1, "expired on 2099-01-01; the given date is 2099-02-01");
    on("tomorrow").fails(2, "--date");
}

#[test]
fn a_self_signed_ca_that_is_itself_trusted() {
    let dir = Dir::new();
    let (config, pem) = tls::self_signed();
    let registry = Registry::start_tls(config);
    let image = Image::small(84);
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", pem);
    Run::new(&dir, &["--cacert", &ca, &registry.name("r")])
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    Run::new(&Dir::new(), &[&registry.name("r")]).fails(1, "certificate");
}

#[test]
fn client_certificates() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server_for_clients());
    Image::small(1).push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    let (cert, key) = authority.client();
    let (cert, key) = (dir.write("cert.pem", cert), dir.write("key.pem", key));
    Run::new(
        &dir,
        &["--retries", "0", "--cacert", &ca, &registry.name("r")],
    )
    .fails(1, "--cert and --key");
    Run::new(
        &dir,
        &[
            "--cacert",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            &registry.name("r"),
        ],
    )
    .archive();
}

#[test]
fn files_that_hold_no_certificate() {
    let dir = Dir::new();
    let empty = dir.write("empty.pem", "nothing here");
    Run::new(&dir, &["--cacert", &empty, "h/r"]).fails(1, "no certificate in PEM form");
    Run::new(&dir, &["--cacert", "missing.pem", "h/r"]).fails(1, "missing.pem");
    Run::new(&dir, &["--cacert", ".", "h/r"]).fails(1, "not a regular file");
}

#[test]
fn directories_of_certificates_belong_to_their_registry() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server_for_clients());
    Image::small(1).push(&registry, "r", "latest");
    let (cert, key) = authority.client();
    let place = |name: &str| format!("config/docker/certs.d/{}/{name}", registry.address);
    dir.write(&place("ca.crt"), &authority.pem);
    dir.write(&place("client.cert"), cert);
    let run = || {
        Run::new(&dir, &["--retries", "0", &registry.name("r")]).env("XDG_CONFIG_HOME", "config")
    };
    run().fails(1, "client.cert");
    dir.write(&place("client.key"), key);
    run().archive();
    let other = Registry::start_tls(authority.server(&Leaf::default()));
    let run = Run::new(
        &dir,
        &["--retries", "0", "-o", "other.tar", &other.name("r")],
    );
    run.env("XDG_CONFIG_HOME", "config").fails(1, "--cacert");
}

#[test]
fn certificates_that_the_environment_names() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    Image::small(1).push(&registry, "r", "latest");
    let file = dir.write("certs/ca.pem", &authority.pem);
    dir.write(
        "certs/broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    Run::new(&dir, &[&registry.name("r")])
        .env("SSL_CERT_FILE", &file)
        .archive();
    Run::new(&dir, &[&registry.name("r"), "-o", "y"])
        .env("SSL_CERT_DIR", "certs")
        .archive();
}
