use super::signing::{self, IN_TOTO, SIGN, Signer, der, pem, spki};
use super::*;
use crate::digest::Algorithm;

fn key(pem: &str) -> crate::Result<PublicKey> {
    PublicKey::from_pem(pem.as_bytes(), "k.pub")
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

/// What a judge who wants this key and this digest says of a signature.
fn judged(
    key: &PublicKey,
    target: &Digest,
    payload: &Payload,
    bytes: &str,
) -> crate::Result<Verified> {
    let keys = [key.clone()];
    let any = |_: Option<&str>| Ok(());
    let demand = Demand {
        keys: &keys,
        identity: &any,
    };
    let mut judge = Judge::new(vec![demand]);
    judge.see("it", payload, bytes.as_bytes(), &[*target]);
    judge.verdict("x").map(|mut verified| verified.remove(0))
}

#[test]
fn every_kind_of_key_checks_both_forms() {
    let target = digest("image");
    for kind in ["p256", "p384", "ed25519", "rsa", "pss"] {
        let signer = Signer::new(kind);
        let key = key(&signer.pem()).unwrap();
        let found = judged(
            &key,
            &target,
            &Payload::Bundle,
            &signer.bundle(&target.to_string()),
        )
        .unwrap();
        assert_eq!(
            (
                found.form,
                found.covers,
                found.key.as_str(),
                found.predicate.as_str()
            ),
            (Form::Bundle, target, "k.pub", SIGN),
            "{kind}"
        );
        assert_eq!(found.claims, [("release".to_owned(), "7".to_owned())]);
        let payload = signing::payload("r.example/a", &target.to_string());
        let signature = signer.signature(payload.as_bytes());
        let found = judged(&key, &target, &Payload::Simple { signature }, &payload).unwrap();
        assert_eq!(
            (found.form, found.identity.as_deref()),
            (Form::SimpleSigning, Some("r.example/a"))
        );
        assert_eq!(found.claims, [("release".to_owned(), "7".to_owned())]);
    }
}

#[test]
fn a_p384_key_may_use_sha256_as_cosign_did() {
    // Made by openssl dgst -sha256 with a key that was thrown away.
    let key = key(include_str!("../../tests/signing/p384.pub")).unwrap();
    let signature = include_str!("../../tests/signing/p384.sig").trim();
    assert!(key.signed(b"dockersave\n", &base64(signature).unwrap()));
    assert!(!key.signed(b"dockersavf\n", &base64(signature).unwrap()));
}

#[test]
fn forged_bundles_say_why_they_do_not_count() {
    let (signer, target) = (Signer::new("p256"), digest("image"));
    let key = key(&signer.pem()).unwrap();
    let sound = signing::statement(&target.to_string(), SIGN);
    let forged = signing::statement(&digest("other").to_string(), SIGN);
    let envelope = |text: &str, signature: &str| {
        signing::bundle(&signing::envelope(IN_TOTO, text, &[signature]))
    };
    let signature = signer.signature(&signing::pae(IN_TOTO, &sound));
    let good = envelope(&sound, &signature);
    assert!(judged(&key, &target, &Payload::Bundle, &good).is_ok());
    let many: Vec<&str> = std::iter::repeat_n(signature.as_str(), 1000).collect();
    let raw = base64(&signature).unwrap();
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let slack = encode(&[&raw[..], &[0]].concat());
    let long = encode(&[&[0x30, 0x81, raw[1]], &raw[2..]].concat());
    let second = good.replacen(
        r#""payload":"#,
        &format!(r#""payload":"{}","payload":"#, encode(forged.as_bytes())),
        1,
    );
    let cased = good.replacen(
        r#""payload":"#,
        &format!(r#""Payload":"{}","payload":"#, encode(forged.as_bytes())),
        1,
    );
    for (bundle, why) in [
        (
            Signer::new("p256").bundle(&target.to_string()),
            "another key",
        ),
        (
            signer.bundle(&digest("other").to_string()),
            "another digest",
        ),
        (envelope(&forged, &signature), "another key"),
        (second, "\"payload\" twice"),
        (cased, "Payload"),
        (envelope(&sound, &slack), "another key"),
        (envelope(&sound, &long), "another key"),
        (envelope(&sound, "!"), "not base64"),
        (
            signing::bundle(&signing::envelope(IN_TOTO, &sound, &many)),
            "objects",
        ),
        (
            signing::bundle(&signing::envelope(IN_TOTO, &sound, &many[..2])),
            "2 signatures",
        ),
        (
            signing::bundle(&signing::envelope(IN_TOTO, &sound, &[])),
            "0 signatures",
        ),
        (
            signer.bundle_of(
                IN_TOTO,
                &signing::statement(&target.to_string(), "https://slsa.dev/provenance/v1"),
            ),
            "an attestation",
        ),
        // The same bytes, signed as something else.
        (
            signer.bundle_of("application/vnd.in-toto+json ", &sound),
            "has a payload of type",
        ),
        (signer.bundle_of("text/plain", &sound), "text/plain"),
        (
            signer.bundle_of(IN_TOTO, &signing::payload("x", &target.to_string())),
            "statement",
        ),
        (
            signer.bundle_of(IN_TOTO, &sound.replace("Statement/v1", "Statement/v9")),
            "statement of type",
        ),
        (
            signer.bundle_of(
                IN_TOTO,
                &sound.replacen(r#""_type":"#, r#""subject":[],"_type":"#, 1),
            ),
            "\"subject\" twice",
        ),
        (good.replace("v0.3", "v0.1"), "0.3"),
        (good.replace("dsseEnvelope", "messageSignature"), "DSSE"),
        (good.replacen('{', r#"{"messageSignature":{},"#, 1), "DSSE"),
        ("{}".into(), "type"),
        ("[".into(), "not understood"),
    ] {
        let error = judged(&key, &target, &Payload::Bundle, &bundle).unwrap_err();
        assert!(matches!(error, Error::Unsigned { .. }), "{error}");
        assert!(error.to_string().contains(why), "{why:?} is not in {error}");
    }
}

#[test]
fn forged_payloads_say_why_they_do_not_count() {
    let (signer, target) = (Signer::new("p256"), digest("image"));
    let key = key(&signer.pem()).unwrap();
    let sound = signing::payload("r.example/a", &target.to_string());
    let other = signing::payload("r.example/a", &digest("other").to_string());
    let statement = signing::statement(&target.to_string(), SIGN);
    let twice = sound.replacen(
        r#""image":"#,
        &format!(r#""image":{{"docker-manifest-digest":"{target}"}},"image":"#),
        1,
    );
    for (payload, signed, why) in [
        (&other, &other, "another digest"),
        (&sound, &other, "another key"),
        (&other, &sound, "another key"),
        (&statement, &statement, "not understood"),
        (&twice, &twice, "\"image\" twice"),
        (
            &sound.replace("cosign container", "atomic container"),
            &sound.replace("cosign container", "atomic container"),
            "payload of type",
        ),
        (&sound.replace("\"image\":", "\"Image\":"), &sound, "Image"),
    ] {
        let signature = signer.signature(signed.as_bytes());
        let error = judged(&key, &target, &Payload::Simple { signature }, payload).unwrap_err();
        assert!(error.to_string().contains(why), "{why:?} is not in {error}");
    }
    let long = sound.replace("\"7\"", &format!("{:?}", "7".repeat(5000)));
    let signature = signer.signature(long.as_bytes());
    let error = judged(&key, &target, &Payload::Simple { signature }, &long).unwrap_err();
    assert!(
        error.to_string().contains("bytes of annotations"),
        "{error}"
    );
    // A bundle's signature is of no use for a payload.
    let signature = signer.signature(&signing::pae(IN_TOTO, &statement));
    assert!(judged(&key, &target, &Payload::Simple { signature }, &sound).is_err());
}

#[test]
fn nothing_found_and_much_found_are_told_in_one_line() {
    let keys = [key(&Signer::new("p256").pem()).unwrap()];
    let any = |_: Option<&str>| Ok(());
    let judge = || {
        Judge::new(vec![Demand {
            keys: &keys,
            identity: &any,
        }])
    };
    let told = |judge: Judge<'_>| judge.verdict("the image").unwrap_err().to_string();
    assert_eq!(
        told(judge()),
        "the image is not signed by k.pub: no signature was found"
    );
    let mut many = judge();
    for number in 0..1000 {
        many.flaw(&format!("s{number}"), "is by\nanother key");
    }
    assert_eq!(
        told(many),
        "the image is not signed by k.pub: 1000 signatures found, but none is valid: s0 is by another key; s1 is by another key; s2 is by another key; and 997 more"
    );
}

#[test]
fn weak_and_malformed_keys_are_refused() {
    let p256 = Signer::new("p256").der();
    let rsa = Signer::new("rsa").der();
    let ed = |point: [u8; 32]| pem("PUBLIC KEY", &spki(signing::ED25519, &point));
    let mut one = [0; 32];
    one[0] = 1;
    let mut negative = one;
    negative[31] = 0x80;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut beyond = minus_one;
    beyond[0] = 0xee;
    let order_8 = *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x85";
    let public = |der: &[u8]| pem("PUBLIC KEY", der);
    let numbers = |n: &[u8], e: &[u8]| {
        public(&spki(
            signing::RSA,
            &der(0x30, &[der(2, n), der(2, e)].concat()),
        ))
    };
    let odd = |bytes: usize| [&[0, 0x80][..], &vec![0; bytes - 2], &[1]].concat();
    let off = |at: usize| {
        let mut bytes = p256.clone();
        bytes[at] ^= 1;
        public(&bytes)
    };
    for (pem, why) in [
        (String::new(), "not a public key in PEM"),
        ("x".repeat(9), "not a public key in PEM"),
        (pem("PRIVATE KEY", &p256), "private key"),
        (pem("ENCRYPTED SIGSTORE PRIVATE KEY", &p256), "private key"),
        (pem("CERTIFICATE", &p256), "certificate"),
        (public(&p256) + &public(&rsa), "exactly one"),
        (
            public(&p256).replace("-----END PUBLIC KEY-----", ""),
            "exactly one complete",
        ),
        (public(&p256).replace("MFk", "M=k"), "base64"),
        (public(&p256[..p256.len() - 1]), "malformed"),
        (public(&[&p256[..], &[0]].concat()), "malformed"),
        (public(&[&[0x30, 0x81], &p256[1..]].concat()), "malformed"),
        // The curve, the point's form, the point.
        (off(22), "unsupported kind"),
        (off(26), "not an uncompressed point"),
        (off(p256.len() - 1), "not an uncompressed point"),
        (
            public(&spki(signing::P384, &p256[26..])),
            "not an uncompressed point",
        ),
        (
            public(&spki(signing::P256, &[0])),
            "not an uncompressed point",
        ),
        (
            public(&spki(
                b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23",
                &[4],
            )),
            "unsupported kind",
        ),
        (ed([0; 32]), "small order"),
        (ed(one), "small order"),
        (ed(negative), "small order"),
        (ed(minus_one), "small order"),
        (ed(beyond), "small order"),
        (ed(order_8), "small order"),
        (public(&spki(signing::ED25519, &[1; 33])), "32 bytes"),
        (numbers(&odd(128), &[1, 0, 1]), "2048"),
        (numbers(&odd(1025), &[1, 0, 1]), "8192"),
        (numbers(&odd(256), &[3]), "weak"),
        (numbers(&odd(256), &[1]), "weak"),
        (numbers(&odd(256), &[1, 0, 2]), "weak"),
        (numbers(&odd(256), &[7, 1, 1, 1, 1, 1]), "weak"),
        (numbers(&[&odd(256)[..], &[0]].concat(), &[1, 0, 1]), "weak"),
        (numbers(&odd(256)[1..], &[1, 0, 1]), "not an RSA key"),
        (numbers(&odd(256), &[0, 1, 0, 1]), "not an RSA key"),
        (public(&spki(signing::RSA, &[0x30, 0])), "not an RSA key"),
    ] {
        let error = key(&pem).unwrap_err();
        assert!(
            error.to_string().contains(why),
            "{why:?} is not in {error}: {pem}"
        );
    }
    assert!(key(&numbers(&odd(257), &[1, 0, 1])).is_ok());
    assert!(key(&format!("\r\n{}\n", public(&p256).replace('\n', "\r\n"))).is_ok());
}

#[test]
fn a_manifest_leads_to_its_signatures_only() {
    let part = |kind: &str, more: &str| {
        format!(
            r#"{{"mediaType":"{kind}","digest":"{}","size":3{more}}}"#,
            digest(kind)
        )
    };
    let manifest = |layers: &[String], more: &str| {
        let config = part(signing::EMPTY, "");
        let text = format!(
            r#"{{"config":{config},"layers":[{}]{more}}}"#,
            layers.join(",")
        );
        Manifest::parse(text.as_bytes(), "x")
    };
    let signed = r#","annotations":{"dev.cosignproject.cosign/signature":"abc"}"#;
    let simple = part(signing::SIMPLE, signed);
    let found = manifest(
        &[
            part(signing::BUNDLE, ""),
            simple.clone(),
            part(signing::SIMPLE, ""),
            part("a/b", signed),
        ],
        "",
    )
    .unwrap();
    let payloads: Vec<&Payload> = found.layers.iter().map(|layer| &layer.payload).collect();
    assert_eq!(
        payloads,
        [
            &Payload::Bundle,
            &Payload::Simple {
                signature: "abc".into()
            }
        ]
    );
    assert!(found.attestation.is_none() && found.config.is_some());
    let predicate =
        r#","annotations":{"dev.sigstore.bundle.predicateType":"https://slsa.dev/provenance/v1"}"#;
    assert!(manifest(&[], predicate).unwrap().attestation.is_some());
    for wrong in [
        manifest(&[simple.replace("\"size\":3", "\"size\":\"3\"")], ""),
        manifest(&[simple.replace("sha256:", "sha1:")], ""),
        manifest(&[simple.replace(r#""size""#, r#""size":1,"size""#)], ""),
        manifest(&vec![simple.clone(); 3000], ""),
    ] {
        assert!(wrong.is_err());
    }
}
