//! Signed images: every form in every kind of registry, and forgeries of all kinds.

use crate::registry::image::{
    Image, OCI_INDEX, OCI_MANIFEST, platform, push_index, put_manifest, sha256,
};
use crate::registry::{Action, Content, Fault, Registry, Reply};
use crate::signing::{self, BUNDLE, EMPTY, IN_TOTO, SIGN, SIMPLE, Signer};
use crate::util::{Dir, Run};
use std::sync::Arc;

const COSIGN_2: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

fn put_blob(registry: &Registry, text: &str) -> String {
    let digest = sha256(text.as_bytes());
    let content = Content::Bytes(Arc::new(text.as_bytes().to_vec()));
    registry.put(
        &format!("/v2/r/blobs/{digest}"),
        "application/octet-stream",
        content,
    );
    digest
}

fn part(kind: &str, text: &str, more: &str) -> String {
    let digest = sha256(text.as_bytes());
    format!(
        r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}{more}}}"#,
        text.len()
    )
}

/// A manifest that holds these layers and refers to a digest.
fn holder(registry: &Registry, subject: &str, layers: &[String], more: &str) -> String {
    let config = put_blob(registry, "{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{EMPTY}","digest":"{config}","size":2}},"layers":[{}],"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{subject}","size":7}}{more}}}"#,
        layers.join(",")
    );
    put_manifest(registry, "r", &sha256(text.as_bytes()), OCI_MANIFEST, &text);
    text
}

/// A bundle and its manifest, as an entry of a list of referrers.
fn bundle(registry: &Registry, subject: &str, bundle: &str) -> String {
    put_blob(registry, bundle);
    let more = format!(r#","artifactType":"{BUNDLE}""#);
    let text = holder(registry, subject, &[part(BUNDLE, bundle, "")], &more);
    // What cosign 3 writes to a registry without the API.
    part(
        OCI_MANIFEST,
        &text,
        &format!(r#","artifactType":"{EMPTY}""#),
    )
}

/// Payloads with their signatures as layers.
fn simple(registry: &Registry, signed: &[(String, String)]) -> Vec<String> {
    let layer = |(payload, signature): &(String, String)| {
        put_blob(registry, payload);
        let more =
            format!(r#","annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}"#);
        part(SIMPLE, payload, &more)
    };
    signed.iter().map(layer).collect()
}

fn payload(signer: &Signer, digest: &str) -> (String, String) {
    let payload = signing::payload("r.example/r", digest);
    let signature = signer.signature(payload.as_bytes());
    (payload, signature)
}

fn index_of(entries: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        entries.join(",")
    )
}

/// The referrers API with this list.
fn api(registry: &Registry, subject: &str, entries: &[String]) {
    let (path, body) = (format!("/v2/r/referrers/{subject}"), index_of(entries));
    registry.route(move |seen| {
        let reply = || Reply::new(200, body.clone()).with(format!("Content-Type: {OCI_INDEX}"));
        (seen.target == path).then(reply)
    });
}

fn tag(digest: &str) -> String {
    digest.replace(':', "-")
}

fn fallback(registry: &Registry, subject: &str, entries: &[String]) {
    put_manifest(registry, "r", &tag(subject), OCI_INDEX, &index_of(entries));
}

fn sig_tag(registry: &Registry, subject: &str, signed: &[(String, String)]) {
    let text = holder(registry, subject, &simple(registry, signed), "");
    put_manifest(
        registry,
        "r",
        &format!("{}.sig", tag(subject)),
        OCI_MANIFEST,
        &text,
    );
}

/// The forms of a signature, and where a registry may have it.
const FORMS: [&str; 5] = [
    "bundle, api",
    "bundle, tag",
    "cosign 2, api",
    "cosign 2, tag",
    "sig",
];

fn sign(registry: &Registry, form: &str, signer: &Signer, digest: &str) {
    let entry = match form.split(',').next().unwrap() {
        "bundle" => bundle(registry, digest, &signer.bundle(digest)),
        "cosign 2" => {
            let layers = simple(registry, &[payload(signer, digest)]);
            let text = holder(registry, digest, &layers, "");
            part(
                OCI_MANIFEST,
                &text,
                &format!(r#","artifactType":"{COSIGN_2}""#),
            )
        }
        "none" => return,
        _ => return sig_tag(registry, digest, &[payload(signer, digest)]),
    };
    match form.ends_with("api") {
        true => api(registry, digest, &[entry]),
        false => fallback(registry, digest, &[entry]),
    }
}

/// A registry with one image, and a key.
fn signed(form: &str, kind: &str) -> (Registry, Image, Signer, Dir) {
    let registry = Registry::start();
    let (image, signer, dir) = (Image::small(1), Signer::new(kind), Dir::new());
    image.push(&registry, "r", "1");
    sign(&registry, form, &signer, &image.digest());
    dir.write("k.pub", signer.pem());
    (registry, image, signer, dir)
}

fn pull<'d>(dir: &'d Dir, registry: &Registry) -> Run<'d> {
    Run::pull(dir, &registry.name("r:1")).args(&["--signed-by", "k.pub"])
}

/// Refused with these words before any layer was requested.
#[track_caller]
fn refused(dir: &Dir, registry: &Registry, image: &Image, words: &str) {
    let outcome = pull(dir, registry).fails(6, words);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    outcome.is_small();
    for layer in &image.layers {
        assert_eq!(registry.count(&layer.digest), 0);
    }
}

#[test]
fn every_form_by_every_kind_of_key_is_found() {
    for form in FORMS {
        for kind in ["p256", "p384", "ed25519", "rsa", "pss"] {
            let (registry, image, _, dir) = signed(form, kind);
            let archive = pull(&dir, &registry).archive();
            archive.holds(&image, Some(&registry.name("r:1")));
            // Without a key, the same bytes.
            let plain = Run::pull(&dir, &registry.name("r:1"))
                .args(&["-o", "plain.tar"])
                .archive();
            assert_eq!(archive.bytes, plain.bytes, "{form} {kind}");
        }
    }
}

#[test]
fn what_was_verified_is_told() {
    let (registry, image, _, dir) = signed("bundle, api", "p256");
    let outcome = pull(&dir, &registry).args(&["--json", "-v"]).status(0);
    let digest = image.digest();
    let words = format!(
        r#""signatures":[{{"key":"k.pub","covers":"{digest}","form":"bundle","predicateType":"{SIGN}","identity":null,"claims":{{"release":"7"}}}}]"#
    );
    assert!(outcome.stdout.contains(&words), "{}", outcome.stdout);
    assert!(
        outcome
            .stderr
            .contains(&format!("is signed by k.pub: bundle of {digest}")),
        "{}",
        outcome.stderr
    );
    let (registry, _, _, dir) = signed("sig", "p256");
    let outcome = pull(&dir, &registry)
        .args(&["--json", "--dry-run"])
        .status(0);
    assert!(
        outcome.stdout.contains(r#""form":"simple-signing""#),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains(r#""identity":"r.example/r""#),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_signature_costs_these_requests() {
    for (form, cost) in [
        ("bundle, api", 3),
        ("cosign 2, api", 3),
        ("bundle, tag", 4),
        ("sig", 4),
    ] {
        let (registry, _, _, dir) = signed(form, "p256");
        Run::pull(&dir, &registry.name("r:1")).archive();
        let plain = registry.seen().len();
        registry.forget();
        pull(&dir, &registry).args(&["-o", "x.tar"]).archive();
        assert_eq!(registry.seen().len(), plain + cost, "{form}");
    }
}

#[test]
fn any_of_several_keys_is_enough() {
    let (registry, _, _, dir) = signed("bundle, tag", "p256");
    dir.write("other.pub", Signer::new("ed25519").pem());
    pull(&dir, &registry)
        .args(&["--signed-by", "other.pub"])
        .archive();
    let run = Run::pull(&dir, &registry.name("r:1")).args(&["--signed-by", "other.pub"]);
    run.args(&["-o", "y.tar"]).fails(
        6,
        "is not signed by other.pub: 1 signature found, but none is valid: referrer sha256:",
    );
}

#[test]
fn what_does_not_count_is_refused_before_a_layer() {
    let registry = Registry::start();
    let (image, signer, dir) = (Image::small(1), Signer::new("p256"), Dir::new());
    image.push(&registry, "r", "1");
    dir.write("k.pub", signer.pem());
    refused(
        &dir,
        &registry,
        &image,
        "is not signed by k.pub: no signature was found",
    );
    let (digest, other) = (image.digest(), Image::small(2).digest());
    for (what, words) in [
        (Signer::new("p256").bundle(&digest), "is by another key"),
        // Moved from another image.
        (signer.bundle(&other), "is for another digest, sha256:"),
        (
            signer.bundle_of(
                IN_TOTO,
                &signing::statement(&digest, "https://slsa.dev/provenance/v1"),
            ),
            "attestation",
        ),
        (
            signer.bundle_of("text/plain", &signing::statement(&digest, SIGN)),
            "a payload of type",
        ),
        (
            signer.bundle_of(IN_TOTO, &signing::payload("r", &digest)),
            "not understood",
        ),
        ("{}".to_owned(), "bundle of type"),
        ("x".repeat(100_000), "larger than"),
    ] {
        for kind in ["api", "tag"] {
            let registry = Registry::start();
            image.push(&registry, "r", "1");
            let entry = bundle(&registry, &digest, &what);
            match kind {
                "api" => api(&registry, &digest, &[entry]),
                _ => fallback(&registry, &digest, &[entry]),
            }
            refused(&dir, &registry, &image, words);
        }
    }
    // The payload's digest is not that of the tag.
    let registry = Registry::start();
    image.push(&registry, "r", "1");
    sig_tag(&registry, &digest, &[payload(&signer, &other)]);
    refused(&dir, &registry, &image, "is for another digest");
    // A payload under another's signature.
    let registry = Registry::start();
    image.push(&registry, "r", "1");
    sig_tag(
        &registry,
        &digest,
        &[(payload(&signer, &digest).0, payload(&signer, &other).1)],
    );
    refused(&dir, &registry, &image, "is by another key");
}

#[test]
fn one_bad_signature_does_not_spoil_a_good_one() {
    let (registry, image, signer, dir) = signed("sig", "p256");
    let digest = image.digest();
    let gone = part(OCI_MANIFEST, "gone", "");
    let foreign = bundle(&registry, &digest, &Signer::new("p256").bundle(&digest));
    let broken = part(OCI_MANIFEST, "[", "");
    put_manifest(&registry, "r", &sha256(b"["), OCI_MANIFEST, "[");
    let sbom = part(
        OCI_MANIFEST,
        "sbom",
        r#","artifactType":"application/spdx+json""#,
    );
    let entries = [
        gone,
        foreign,
        broken,
        sbom,
        "7".into(),
        "{}".into(),
        r#"{"digest":"sha1:0","size":1}"#.into(),
        bundle(&registry, &digest, &signer.bundle(&digest)),
    ];
    api(&registry, &digest, &entries);
    pull(&dir, &registry).archive();
    assert_eq!(registry.count(&sha256(b"sbom")), 0);
    assert_eq!(registry.count(".sig"), 0);
}

#[test]
fn an_index_covers_what_it_names() {
    for form in FORMS {
        let registry = Registry::start();
        let (image, signer, dir) = (Image::small(1), Signer::new("p256"), Dir::new());
        image.push_untagged(&registry, "r");
        let entry = image.entry(&platform("linux", own(), ""));
        let digest = push_index(&registry, "r", "1", OCI_INDEX, &[entry]);
        dir.write("k.pub", signer.pem());
        refused(&dir, &registry, &image, "no signature was found");
        sign(&registry, form, &signer, &digest);
        let outcome = pull(&dir, &registry).arg("--json").status(0);
        assert!(
            outcome.stdout.contains(&format!(r#""covers":"{digest}""#)),
            "{}",
            outcome.stdout
        );
        pull(&dir, &registry)
            .args(&["--all-platforms", "-o", "all.tar"])
            .archive();
        // Each without the other's signature.
        let outer = push_index(
            &registry,
            "r",
            "1",
            OCI_INDEX,
            &[nested(&digest, &registry)],
        );
        assert_ne!(outer, digest);
        let outcome = pull(&dir, &registry)
            .args(&["--json", "-o", "nested.tar"])
            .status(0);
        assert!(
            outcome.stdout.contains(&format!(r#""covers":"{digest}""#)),
            "{}",
            outcome.stdout
        );
    }
}

#[test]
fn a_lock_leads_to_the_index_that_is_signed() {
    let registry = Registry::start();
    let (image, signer, dir) = (Image::small(1), Signer::new("p256"), Dir::new());
    image.push_untagged(&registry, "r");
    let entry = image.entry(&platform("linux", own(), ""));
    let digest = push_index(&registry, "r", "1", OCI_INDEX, &[entry]);
    dir.write("k.pub", signer.pem());
    dir.write("other.pub", Signer::new("p256").pem());
    sign(&registry, FORMS[0], &signer, &digest);
    let run = pull(&dir, &registry).args(&["--lock", "r.lock", "-o", "r.tar"]);
    let first = run.archive();
    let locked = |key: &str| {
        let args = ["--insecure", "--from", "r.lock", "--working-dir", "w"];
        Run::new(&dir, &args).args(&["--signed-by", key])
    };
    locked("other.pub").fails(6, "is not signed by other.pub");
    assert!(locked("k.pub").archive().bytes == first.bytes);
    // An archive that is here is no proof of a signature.
    locked("other.pub").status(6);
}

/// The processor that images are for.
fn own() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "arm" => "arm",
        "riscv64" => "riscv64",
        _ => "amd64",
    }
}

/// An entry for an index that the registry has.
fn nested(digest: &str, registry: &Registry) -> String {
    let url = format!("http://{}/v2/r/manifests/{digest}", registry.address);
    let text = minreq::get(url)
        .send()
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    part(OCI_INDEX, &text, "")
}

#[test]
fn a_signed_manifest_in_an_index_that_is_not() {
    let registry = Registry::start();
    let (image, signer, dir) = (Image::small(1), Signer::new("p256"), Dir::new());
    image.push_untagged(&registry, "r");
    sign(&registry, "bundle, tag", &signer, &image.digest());
    dir.write("k.pub", signer.pem());
    push_index(
        &registry,
        "r",
        "1",
        OCI_INDEX,
        &[image.entry(&platform("linux", own(), ""))],
    );
    let outcome = pull(&dir, &registry).arg("--json").status(0);
    assert!(
        outcome
            .stdout
            .contains(&format!(r#""covers":"{}""#, image.digest()))
    );
    // All platforms are what the index says.
    pull(&dir, &registry)
        .args(&["--all-platforms", "-o", "x.tar"])
        .fails(6, "no signature was found");
    // Nor may it call the manifest one for another platform.
    push_index(
        &registry,
        "r",
        "1",
        OCI_INDEX,
        &[image.entry(&platform("linux", "s390x", ""))],
    );
    pull(&dir, &registry)
        .args(&["--arch", "s390x", "-o", "y.tar"])
        .fails(6, "an unsigned index says");
}

#[test]
fn errors_in_place_of_referrers_are_no_downgrade() {
    let (registry, _, _, dir) = signed("sig", "p256");
    let denied = Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#);
    registry.fault("/referrers/", Action::Reply(denied));
    pull(&dir, &registry).fails(3, "no");
    let registry = registry.lenient();
    registry.behave();
    registry.faults(Fault::new("/referrers/", Action::Reply(Reply::new(500, ""))).always());
    pull(&dir, &registry).limit(60).fails(5, "500");
    // What a registry without referrers may say.
    for status in [400, 404, 405, 406, 501] {
        registry.behave();
        registry.faults(Fault::new("/referrers/", Action::Reply(Reply::new(status, ""))).always());
        let name = format!("{status}.tar");
        pull(&dir, &registry).args(&["-o", &name]).archive();
    }
    registry.behave();
    let page = Reply::new(200, "<html>welcome</html>").with("Content-Type: text/html");
    registry.faults(Fault::new("/referrers/", Action::Reply(page)).always());
    pull(&dir, &registry).args(&["-o", "page.tar"]).archive();
}

#[test]
fn pages_of_referrers_are_followed_to_their_end() {
    let (registry, image, signer, dir) = signed("none, x", "p256");
    let digest = image.digest();
    let good = bundle(&registry, &digest, &signer.bundle(&digest));
    let path = format!("/v2/r/referrers/{digest}");
    registry.route(move |seen| {
        let rest = seen.target.strip_prefix(&path)?;
        let page: usize = rest
            .strip_prefix("?page=")
            .map_or(0, |page| page.parse().unwrap());
        let entries = if page == 3 {
            vec![good.clone()]
        } else {
            vec![]
        };
        let reply = Reply::new(200, index_of(&entries)).with(format!("Content-Type: {OCI_INDEX}"));
        Some(if page < 3 {
            reply.with(format!("Link: <{path}?page={}>; rel=\"next\"", page + 1))
        } else {
            reply
        })
    });
    pull(&dir, &registry).archive();
    // A list without end.
    let (registry, image, _, dir) = signed("none, x", "p256");
    let path = format!("/v2/r/referrers/{}", image.digest());
    registry.route(move |seen| {
        let rest = seen.target.strip_prefix(&path)?;
        let page: usize = rest
            .strip_prefix("?page=")
            .map_or(0, |page| page.parse().unwrap());
        Some(
            Reply::new(200, index_of(&[]))
                .with(format!("Link: <{path}?page={}>; rel=\"next\"", page + 1)),
        )
    });
    let outcome = pull(&dir, &registry).fails(1, "do not end after");
    assert!(registry.count("/referrers/") <= 64 + 1);
    outcome.is_small();
    // It leads nowhere else.
    let (registry, image, _, dir) = signed("none, x", "p256");
    let path = format!("/v2/r/referrers/{}", image.digest());
    registry.route(move |seen| {
        (seen.target == path)
            .then(|| Reply::new(200, index_of(&[])).with("Link: <http://192.0.2.1/>; rel=next"))
    });
    pull(&dir, &registry).fails(1, "leads to another host");
}

#[test]
fn more_than_anybody_needs_is_cut_off() {
    // A thousand signatures in one manifest.
    let (registry, image, signer, dir) = signed("none, x", "p256");
    let digest = image.digest();
    let foreign = Signer::new("p256");
    let many: Vec<_> = (0..1000)
        .map(|number| {
            let payload = signing::payload(&format!("r.example/{number}"), &digest);
            let signature = foreign.signature(payload.as_bytes());
            (payload, signature)
        })
        .collect();
    sig_tag(&registry, &digest, &many);
    refused(&dir, &registry, &image, "and ");
    assert!(registry.seen().len() < 200, "{}", registry.seen().len());
    // As many bundles, and then a million.
    let entries: Vec<String> = (0..1000)
        .map(|number| part(OCI_MANIFEST, &number.to_string(), ""))
        .collect();
    api(&registry, &digest, &entries);
    registry.forget();
    refused(&dir, &registry, &image, "and ");
    assert!(registry.seen().len() < 400, "{}", registry.seen().len());
    let registry = Registry::start();
    image.push(&registry, "r", "1");
    let path = format!("/v2/r/referrers/{digest}");
    let million = index_of(&vec![part(OCI_MANIFEST, "x", ""); 1_000_000]);
    registry.route(move |seen| (seen.target == path).then(|| Reply::new(200, million.clone())));
    let outcome = pull(&dir, &registry).fails(1, "larger than");
    outcome.is_small();
    // In pages, each with annotations.
    let registry = Registry::start();
    image.push(&registry, "r", "1");
    let path = format!("/v2/r/referrers/{digest}");
    registry.route(move |seen| {
        let rest = seen.target.strip_prefix(&path)?;
        let page: usize = rest
            .strip_prefix("?page=")
            .map_or(0, |page| page.parse().unwrap());
        let entry = |number: usize| {
            part(
                OCI_MANIFEST,
                &format!("{page} {number}"),
                &format!(r#","annotations":{{"a":"{}"}}"#, "b".repeat(400)),
            )
        };
        let page = page + 1;
        let entries: Vec<String> = (0..900).map(entry).collect();
        Some(
            Reply::new(200, index_of(&entries))
                .with(format!("Link: <{path}?page={page}>; rel=\"next\"")),
        )
    });
    pull(&dir, &registry).fails(1, "are more than").is_small();
    let _ = signer;
}

#[test]
fn keys_that_are_none_are_told_before_any_request() {
    let (registry, _, _, dir) = signed("sig", "p256");
    let registry = registry.lenient();
    dir.write("bad.pub", "x");
    for (file, words) in [
        ("bad.pub", "not a public key in PEM"),
        ("missing.pub", "reading the key missing.pub"),
    ] {
        let run = Run::pull(&dir, &registry.name("r:1")).args(&["--signed-by", file]);
        run.fails(1, words);
    }
    assert_eq!(registry.seen().len(), 0);
}

#[test]
fn kept_signatures_are_checked_in_the_archive() {
    for form in FORMS {
        let (registry, image, signer, dir) = signed(form, "p256");
        let archive = pull(&dir, &registry).arg("--keep-signatures").archive();
        assert_eq!(archive.text("manifest.json").matches("Config").count(), 1);
        let index = archive.text("index.json");
        assert_eq!(
            index
                .matches(r#""kind":"dev.cosignproject.cosign/image""#)
                .count(),
            1,
            "{index}"
        );
        assert_eq!(
            index
                .matches(r#""mediaType":"application/vnd.oci.image.manifest"#)
                .count(),
            1
        );
        // The same without being asked for by whom, and again to a pipe.
        let again = Run::pull(&dir, &registry.name("r:1"))
            .args(&["--keep-signatures", "-o", "again.tar"])
            .archive();
        assert_eq!(archive.bytes, again.bytes);
        let path = archive.path.display().to_string();
        let verify =
            |file: &str, key: &str| Run::new(&dir, &["--verify", file, "--signed-by", key]);
        let outcome = verify(&path, "k.pub").status(0);
        assert!(
            outcome
                .stdout
                .contains(&format!("signed by k.pub: {}\n", image.digest())),
            "{}",
            outcome.stdout
        );
        outcome.is_small();
        let outcome = verify(&path, "k.pub").arg("--json").status(0);
        assert!(
            outcome.stdout.contains(r#""signatures":[{"key":"k.pub""#),
            "{}",
            outcome.stdout
        );
        Run::new(&dir, &["--verify", "-", "--signed-by", "k.pub"])
            .within(&format!("exec \"$@\" < {path}"))
            .status(0)
            .is_small();
        dir.write("other.pub", Signer::new("p256").pem());
        let outcome = verify(&path, "other.pub").status(6);
        assert!(
            outcome.stderr.contains("is by another key"),
            "{}",
            outcome.stderr
        );
        verify(&path, "other.pub")
            .args(&["--signed-by", "k.pub"])
            .status(0);
        // Without what belongs to it, it is no archive of this program any more.
        let plain = Run::pull(&dir, &registry.name("r:1"))
            .args(&["-o", "plain.tar"])
            .archive();
        let outcome = verify("plain.tar", "k.pub").status(6);
        assert!(
            outcome.stderr.contains("no signature was found"),
            "{}",
            outcome.stderr
        );
        assert!(plain.bytes.len() < archive.bytes.len());
        // A directory of it.
        pull(&dir, &registry)
            .args(&["--keep-signatures", "--no-tar", "--layers-dir", "d"])
            .status(0);
        verify("d", "k.pub").status(0);
        let _ = signer;
    }
}

#[test]
fn damage_to_what_is_kept_is_found() {
    let (registry, _, _, dir) = signed("bundle, tag", "p256");
    let archive = pull(&dir, &registry).arg("--keep-signatures").archive();
    let text = b"dsseEnvelope";
    let at = archive
        .bytes
        .windows(text.len())
        .position(|part| part == text)
        .unwrap();
    let mut bytes = archive.bytes.clone();
    bytes[at] ^= 1;
    let path = dir.write("damaged.tar", bytes);
    let outcome = Run::new(&dir, &["--verify", &path, "--signed-by", "k.pub"]).status(6);
    assert!(
        outcome
            .stdout
            .contains("does not have the digest in its name"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("not signed: "),
        "{}",
        outcome.stdout
    );
    // A list of what is kept that is not what is there.
    let kept = b"dockersave.kept\":\"sha256:";
    let at = archive
        .bytes
        .windows(kept.len())
        .position(|part| part == kept)
        .unwrap();
    let mut bytes = archive.bytes.clone();
    bytes[at + kept.len()] = if bytes[at + kept.len()] == b'0' {
        b'1'
    } else {
        b'0'
    };
    let path = dir.write("list.tar", bytes);
    let outcome = Run::new(&dir, &["--verify", &path]).status(6);
    assert!(
        outcome
            .stdout
            .contains("index.json: is not as dockersave writes it"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_signed_index_is_kept_and_leads_to_its_manifest() {
    for form in FORMS {
        let registry = Registry::start();
        let (image, other, signer, dir) = (
            Image::small(1),
            Image::small(2),
            Signer::new("p384"),
            Dir::new(),
        );
        image.push_untagged(&registry, "r");
        other.push_untagged(&registry, "r");
        let entries = [
            image.entry(&platform("linux", own(), "")),
            other.entry(&platform("linux", "s390x", "")),
        ];
        let digest = push_index(&registry, "r", "1", OCI_INDEX, &entries);
        sign(&registry, form, &signer, &digest);
        dir.write("k.pub", signer.pem());
        let archive = pull(&dir, &registry).args(&["--keep-signatures"]).archive();
        assert!(
            archive
                .names
                .contains(&format!("blobs/{}", digest.replace(':', "/")))
        );
        Run::new(&dir, &["--verify", &archive.name(), "--signed-by", "k.pub"]).status(0);
        let all = pull(&dir, &registry)
            .args(&["--all-platforms", "--keep-signatures", "-o", "all.tar"])
            .archive();
        assert!(
            all.text("index.json")
                .contains("dev.cosignproject.cosign/imageIndex")
        );
        Run::new(&dir, &["--verify", "all.tar", "--signed-by", "k.pub"]).status(0);
        // An image that the signed index does not name, beside it.
        let third = Image::small(3);
        third.push(&registry, "r", "3");
        let both = [registry.name("r:1"), registry.name("r:3")];
        let run =
            Run::pull(&dir, &both[0]).args(&[&both[1], "--keep-signatures", "-o", "both.tar"]);
        run.status(0);
        let outcome = Run::new(&dir, &["--verify", "both.tar", "--signed-by", "k.pub"]).status(6);
        assert!(
            outcome.stdout.contains("r:3: is not signed by k.pub"),
            "{}",
            outcome.stdout
        );
        assert!(
            !outcome.stdout.contains("r:1: is not signed"),
            "{}",
            outcome.stdout
        );
    }
}

#[test]
fn a_mirror_without_referrers_still_serves_layers() {
    let (registry, image, _, dir) = signed("bundle, tag", "p256");
    let mirror = Registry::start();
    image.push(&mirror, "r", "1");
    mirror.faults(Fault::new("/referrers/", Action::Reply(Reply::new(405, ""))).always());
    let address = format!("http://{}", mirror.address);
    let run = pull(&dir, &registry).args(&["--mirror", &address, "--mirror-tags"]);
    run.archive().holds(&image, Some(&registry.name("r:1")));
    for layer in &image.layers {
        assert_eq!(mirror.count(&layer.digest), 1);
    }
    // The bundle.
    assert_eq!(registry.count("/blobs/"), 1);
}

#[test]
fn referrers_are_listed_and_kept() {
    let (registry, image, _, dir) = signed("none, x", "p256");
    let digest = image.digest();
    put_blob(&registry, "the sbom");
    let sbom = holder(
        &registry,
        &digest,
        &[part("application/spdx+json", "the sbom", "")],
        r#","artifactType":"application/spdx+json""#,
    );
    let sbom = part(
        OCI_MANIFEST,
        &sbom,
        r#","artifactType":"application/spdx+json","annotations":{"b":"2","a":"\u001b[1m"}"#,
    );
    let attested = bundle(&registry, &digest, "an attestation");
    for (number, list) in [api, fallback].iter().enumerate() {
        let registry = if number == 0 {
            &registry
        } else {
            &Registry::start()
        };
        image.push(registry, "r", "1");
        list(registry, &digest, &[sbom.clone(), attested.clone()]);
        let outcome =
            Run::new(&dir, &["--insecure", "--referrers", &registry.name("r:1")]).status(0);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert!(
            lines[0].starts_with("application/spdx+json\tsha256:"),
            "{}",
            outcome.stdout
        );
        assert_eq!(lines.len(), 2);
        let outcome = Run::new(
            &dir,
            &["--insecure", "--referrers", "--json", &registry.name("r:1")],
        )
        .status(0);
        assert!(
            outcome
                .stdout
                .contains(r#""annotations":{"a":"\u001b[1m","b":"2"}"#),
            "{}",
            outcome.stdout
        );
    }
    let archive = Run::pull(&dir, &registry.name("r:1"))
        .arg("--keep-referrers=application/spdx+json")
        .archive();
    let blob = |text: &str| format!("blobs/{}", sha256(text.as_bytes()).replace(':', "/"));
    assert_eq!(archive.text(&blob("the sbom")), "the sbom");
    assert!(!archive.names.contains(&blob("an attestation")));
    Run::new(&dir, &["--verify", &archive.name()]).status(0);
    let all = Run::pull(&dir, &registry.name("r:1"))
        .args(&["--keep-referrers", "--format", "oci", "-o", "all.tar"])
        .archive();
    assert!(all.names.contains(&blob("an attestation")) && all.names.contains(&blob("the sbom")));
    Run::new(&dir, &["--verify", "all.tar"]).status(0);
    // To a pipe, the same bytes.
    Run::pull(&dir, &registry.name("r:1"))
        .args(&["--keep-referrers", "--format", "oci", "-o", "-"])
        .within("exec \"$@\" > piped.tar")
        .status(0);
    assert_eq!(std::fs::read(dir.join("piped.tar")).unwrap(), all.bytes);
    assert_eq!(
        Run::new(
            &dir,
            &["--insecure", "--referrers", &registry.name("r:none")]
        )
        .status(4)
        .stdout,
        ""
    );
}

#[test]
fn what_is_kept_counts_with_the_documents_of_a_run() {
    let (registry, image, _, dir) = signed("none, x", "p256");
    let more = r#","artifactType":"a/b""#;
    let referrers: Vec<String> = (0..60)
        .map(|number| {
            let layers: Vec<String> = (0..1000)
                .map(|layer| part("c/d", &format!("{number} {layer}"), ""))
                .collect();
            let text = holder(&registry, &image.digest(), &layers, more);
            part(OCI_MANIFEST, &text, more)
        })
        .collect();
    api(&registry, &image.digest(), &referrers);
    let outcome = Run::pull(&dir, &registry.name("r:1"))
        .arg("--keep-referrers")
        .fails(1, "is larger than the limit of");
    outcome.is_small();
    assert_eq!(registry.count("/blobs/"), 1, "only the config is asked for");
}

#[test]
fn a_policy_says_who_must_have_signed_what() {
    let (registry, image, signer, dir) = signed("bundle, tag", "p256");
    let name = registry.name("r:1");
    let run = |policy: &str, output: &str| {
        dir.write("p.json", policy);
        Run::pull(&dir, &name).args(&["--policy", "p.json", "-o", output])
    };
    let scoped = |requirement: &str| {
        format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{}":[{requirement}]}}}}}}"#,
            registry.name("r")
        )
    };
    let key = dir.join("k.pub").display().to_string();
    let signed = |more: &str| {
        scoped(&format!(
            r#"{{"type":"sigstoreSigned","keyPath":"{key}"{more}}}"#
        ))
    };
    run(&signed(""), "a.tar").archive();
    run(&scoped(r#"{"type":"insecureAcceptAnything"}"#), "b.tar").archive();
    registry.forget();
    run(r#"{"default":[{"type":"reject"}]}"#, "c.tar").fails(6, "is rejected (policy p.json)");
    run(r#"{"default":[]}"#, "d.tar").fails(1, "policy p.json");
    run(&scoped(r#"{"type":"signedBy"}"#), "e.tar").fails(6, "unsupported: signedBy");
    assert_eq!(registry.seen().len(), 0);
    run(
        &signed(r#","signedIdentity":{"type":"matchRepository"}"#),
        "f.tar",
    )
    .fails(6, "names no repository");
    dir.write("other.pub", Signer::new("p256").pem());
    run(&signed("").replace("k.pub", "other.pub"), "g.tar").fails(6, "is by another key");
    // Both are needed.
    run(&signed(""), "h.tar")
        .args(&["--signed-by", "other.pub"])
        .fails(6, "is not signed by other.pub");
    run(&signed(""), "i.tar")
        .args(&["--signed-by", "k.pub"])
        .archive();
    // The name that was signed.
    let payload = signing::payload(&registry.name("r"), &image.digest());
    let signature = signer.signature(payload.as_bytes());
    sig_tag(&registry, &image.digest(), &[(payload, signature)]);
    run(
        &signed(r#","signedIdentity":{"type":"matchRepository"}"#),
        "j.tar",
    )
    .archive();
    let elsewhere =
        r#","signedIdentity":{"type":"exactRepository","dockerRepository":"r.example/r"}"#;
    run(&signed(elsewhere), "k.tar").fails(6, "is for 127.0.0.1");
}

#[test]
fn a_thin_archive_and_what_is_joined_of_it_keep_signatures() {
    for form in FORMS {
        let (registry, image, _, dir) = signed(form, "p256");
        // An earlier release has its first layer.
        let old = Image::new(image.layers[..1].to_vec());
        old.push(&registry, "r", "0");
        Run::pull(&dir, &registry.name("r:0"))
            .args(&["-o", "old.tar"])
            .status(0);
        let kept = |args: &[&str]| {
            let pull = pull(&dir, &registry).arg("--keep-signatures");
            pull.args(args).archive().bytes
        };
        let full = kept(&["-o", "full.tar"]);
        assert!(kept(&["--base", "old.tar", "-o", "thin.tar"]).len() < full.len());
        let base = ["--base", "old.tar"];
        Run::new(&dir, &["--verify", "thin.tar", "--signed-by", "k.pub"])
            .args(&base)
            .status(0);
        Run::new(&dir, &["--join", "thin.tar", "-o", "joined.tar"])
            .args(&base)
            .status(0);
        assert!(
            std::fs::read(dir.join("joined.tar")).unwrap() == full,
            "{form}"
        );
    }
}
