//! Generated certificates, good and bad ones.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm,
};
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// A certificate authority.
pub struct Authority {
    pub pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a server's certificate is to be.
#[derive(Clone)]
pub struct Leaf {
    pub names: Vec<String>,
    pub from: (i32, u8, u8),
    pub until: (i32, u8, u8),
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            names: vec!["127.0.0.1".into(), "localhost".into()],
            from: (2020, 1, 1),
            until: (2099, 1, 1),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<rustls::ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(
        builder
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap(),
    )
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        Self {
            pem: made.pem(),
            der: made.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn server(&self, leaf: &Leaf) -> Arc<rustls::ServerConfig> {
        let mut params = CertificateParams::new(leaf.names.clone()).unwrap();
        params.not_before = rcgen::date_time_ymd(leaf.from.0, leaf.from.1, leaf.from.2);
        params.not_after = rcgen::date_time_ymd(leaf.until.0, leaf.until.1, leaf.until.2);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        server(vec![made.der().clone(), self.der.clone()], &key)
    }

    /// A server that speaks TLS in no other way than this provider's, with a key of this kind.
    pub fn server_by(
        &self,
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
        kind: &'static SignatureAlgorithm,
    ) -> Arc<rustls::ServerConfig> {
        let params = CertificateParams::new(Leaf::default().names).unwrap();
        let key = KeyPair::generate_for(kind).unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap();
        Arc::new(
            builder
                .with_no_client_auth()
                .with_single_cert(vec![made.der().clone()], key)
                .unwrap(),
        )
    }

    /// A server that wants a client certificate of this authority.
    pub fn server_for_clients(&self) -> Arc<rustls::ServerConfig> {
        let params = CertificateParams::new(Leaf::default().names).unwrap();
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider(),
        )
        .build()
        .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(vec![made.der().clone()], key)
                .unwrap(),
        )
    }

    /// A client's certificate and key, PEM.
    pub fn client(&self) -> (String, String) {
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// What `openssl req -x509` makes: self-signed, and a CA; the config and its PEM.
pub fn self_signed() -> (Arc<rustls::ServerConfig>, String) {
    let mut params = CertificateParams::new(Leaf::default().names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    (server(vec![made.der().clone()], &key), made.pem())
}
