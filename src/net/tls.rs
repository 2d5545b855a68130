//! TLS trust: roots, client certificates, and the messages when verification fails. rustls does the
//! protocol.
//!
//! Roots are Mozilla's, built in (a FROM-scratch container has none), and those given by options.
//! They are loaded when the first TLS connection is made.

use super::clock::Clock;
use super::error::Failure;
use super::url::Origin;
use crate::error::{Error, Result, printable};
use crate::hint::Hint;
use rustls::InconsistentKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The largest PEM file, in bytes.
const PEM_LIMIT: u64 = 4 << 20;

/// The certificate and key files to use.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustOptions {
    /// Further roots, PEM.
    pub roots: Vec<PathBuf>,
    /// A certificate chain and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Certificates are not checked at all.
    pub skip_verify: bool,
    /// The time to check certificates against.
    pub clock: Clock,
    /// Neither the environment nor directories of other tools are looked at.
    pub bare: bool,
}

/// Where Docker and containers tools keep per-registry certificates, below /etc and the user's
/// configuration directory.
const DIRECTORIES: [&str; 2] = ["docker/certs.d", "containers/certs.d"];

impl TrustOptions {
    /// The same for a host that the user did not name: it gets no client certificate.
    pub fn without_identity(mut self) -> Self {
        self.identity = None;
        self
    }

    /// Adds the registry's own `*.crt` as roots and a pair of `X.cert` and `X.key` as client
    /// certificate, if they exist and no option overrides them.
    pub fn with_directories(mut self, origin: &Origin) -> Result<Self> {
        if self.bare {
            return Ok(self);
        }
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let own = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        for base in [Some(PathBuf::from("/etc")), own].into_iter().flatten() {
            for directory in DIRECTORIES {
                // A host alone means the default port.
                for host in [origin.host_and_port(), origin.authority()] {
                    self.add_directory(&base.join(directory).join(host))?;
                }
            }
        }
        let mut roots: Vec<PathBuf> = Vec::new();
        for root in std::mem::take(&mut self.roots) {
            let at = roots.partition_point(|own| *own < root);
            if roots.get(at) != Some(&root) {
                roots.insert(at, root);
            }
        }
        self.roots = roots;
        Ok(self)
    }

    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(Error::input(directory, "reading certificates from", error)),
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.roots.push(path),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(Error::input(
                            &path,
                            "looking for the .key beside",
                            io::Error::from(io::ErrorKind::NotFound),
                        ));
                    }
                    self.identity.get_or_insert((path, key));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Certificates in `SSL_CERT_FILE` and `SSL_CERT_DIR`; anything that does not parse is skipped.
fn from_environment() -> Vec<CertificateDer<'static>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut files: Vec<PathBuf> = variable("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for directory in variable("SSL_CERT_DIR")
        .iter()
        .flat_map(std::env::split_paths)
    {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        files.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .take(1000),
        );
    }
    files
        .iter()
        .filter_map(|file| certificates(file).ok())
        .flatten()
        .collect()
}

/// The trust from [`TrustOptions`]; files are read immediately, so that errors appear early.
pub(crate) struct Trust {
    own: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    skip_verify: bool,
    clock: Clock,
    bare: bool,
    config: OnceLock<std::result::Result<Arc<ClientConfig>, String>>,
}

impl Trust {
    pub fn new(options: &TrustOptions) -> Result<Self> {
        let mut own = Vec::new();
        for path in &options.roots {
            let found = certificates(path)?;
            if found.is_empty() {
                return Err(Error::input(
                    path,
                    "reading certificates from",
                    no_pem("certificate"),
                ));
            }
            own.extend(found);
        }
        let identity = match &options.identity {
            None => None,
            Some((chain, key)) => {
                let bytes = read(key, "reading the private key")?;
                let found = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
                    Error::input(
                        key,
                        "reading the private key from",
                        no_pem("unencrypted private key"),
                    )
                })?;
                Some((certificates(chain)?, found))
            }
        };
        Ok(Self {
            own,
            identity,
            skip_verify: options.skip_verify,
            clock: options.clock,
            bare: options.bare,
            config: OnceLock::new(),
        })
    }

    pub fn client(&self, host: &str) -> std::result::Result<UnbufferedClientConnection, Failure> {
        let wrong = |why: String| Failure::Tls {
            host: host.to_owned(),
            why,
            hint: None,
        };
        let config = self
            .config
            .get_or_init(|| self.build())
            .clone()
            .map_err(wrong)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| wrong("is not a name that a certificate can be for".into()))?;
        UnbufferedClientConnection::new(config, name).map_err(|error| wrong(error.to_string()))
    }

    fn build(&self) -> std::result::Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(super::provider::provider());
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        // Entries that webpki cannot use are skipped.
        let environment = match self.bare {
            true => Vec::new(),
            false => from_environment(),
        };
        roots.add_parsable_certificates(self.own.iter().cloned().chain(environment));
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| error.to_string())?;
        let verifier = Verifier {
            inner: verifier,
            provider: provider.clone(),
            own: self.own.clone(),
            skip: self.skip_verify,
        };
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(self.clock))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let wrong = |error| format!("the client certificate and its key: {error}");
                let key = provider.key_provider.load_private_key(key.clone_key());
                let pair = CertifiedKey::new(chain.clone(), key.map_err(wrong)?);
                // Only a mismatch is an error: an X.509 version 1 certificate, as made by `openssl
                // x509 -req`, cannot be compared here, and the server decides.
                if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
                    pair.keys_match()
                {
                    return Err(wrong(error));
                }
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A tenth of rustls's 256 sessions: a pull uses only a few hosts.
        config.resumption = rustls::client::Resumption::in_memory_sessions(16);
        Ok(Arc::new(config))
    }

    /// One sentence: what went wrong and what to do about it.
    pub fn explain(&self, host: &str, error: &io::Error) -> Failure {
        let host = host.to_owned();
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(error) => Failure::Tls {
                host,
                why: self.sentence(error),
                hint: hint(error),
            },
            None if error.kind() == io::ErrorKind::TimedOut => Failure::Timer {
                host,
                what: "no TLS handshake",
                seconds: 0,
            },
            None => Failure::Closed {
                host,
                why: format!(
                    "closed the connection during the TLS handshake: {}",
                    crate::error::plain(error)
                ),
            },
        }
    }

    fn sentence(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InvalidCertificate(problem) => self.certificate(problem),
            other => sentence(other),
        }
    }

    fn certificate(&self, problem: &CertificateError) -> String {
        use CertificateError as C;
        match problem {
            C::Expired => "its certificate has expired".into(),
            C::ExpiredContext { not_after, .. } => {
                format!("its certificate expired on {}; {}", date(*not_after), self.clock.told())
            }
            C::NotValidYet => "its certificate is not valid yet: is this system's clock right?".into(),
            C::NotValidYetContext { not_before, .. } => format!(
                "its certificate is valid from {} on, but {}: set the clock, or give the date",
                date(*not_before), self.clock.told()
            ),
            C::UnknownIssuer => format!(
                "its certificate is not signed by any of the {} trusted roots; give the registry's own CA",
                webpki_roots::TLS_SERVER_ROOTS.len() + self.own.len()
            ),
            C::NotValidForName => "its certificate is for another name".into(),
            C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                "its certificate names no host (a common name alone is not enough)".into()
            }
            C::NotValidForNameContext { presented, .. } => {
                format!("its certificate is for another name: {}", printable(&presented.join(", "), 200))
            }
            other if is_ca_as_leaf(other) => {
                "its certificate is a CA certificate (CA:TRUE), as openssl req -x509 makes them; to trust it, give it".into()
            }
            other => format!("its certificate is not accepted: {}", printable(&format!("{other:?}"), 120)),
        }
    }
}

/// Explains a failure on an established connection: with TLS 1.3, a rejected client certificate is
/// reported only after the handshake.
pub(crate) fn broken(host: String, error: &io::Error) -> Failure {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(alert @ rustls::Error::AlertReceived(_)) => Failure::Tls {
            host,
            why: sentence(alert),
            hint: hint(alert),
        },
        _ => Failure::Protocol {
            host,
            why: format!("violated TLS: {}", crate::error::plain(error)),
        },
    }
}

/// What may help; [`sentence`] and [`Trust::certificate`] say what is wrong.
fn hint(error: &rustls::Error) -> Option<Hint> {
    use rustls::{AlertDescription as A, CertificateError as C, Error as E};
    Some(match error {
        E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            Hint::VerificationTime
        }
        E::InvalidCertificate(C::UnknownIssuer) => Hint::RootCertificates,
        E::InvalidCertificate(problem) if is_ca_as_leaf(problem) => Hint::RootCertificates,
        E::InvalidMessage(_) => Hint::PlainHttp,
        E::AlertReceived(
            A::CertificateRequired
            | A::BadCertificate
            | A::UnknownCA
            | A::CertificateUnknown
            | A::AccessDenied,
        ) => Hint::Identity,
        _ => return None,
    })
}

fn sentence(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidMessage(_) => "does not speak TLS on this port".into(),
        E::AlertReceived(alert) => match format!("{alert:?}").as_str() {
            "CertificateRequired"
            | "BadCertificate"
            | "UnknownCA"
            | "CertificateUnknown"
            | "AccessDenied" => {
                format!("requires a client certificate that it trusts (TLS alert {alert:?})")
            }
            "HandshakeFailure" | "ProtocolVersion" | "InsufficientSecurity" => {
                format!("does not offer TLS 1.2 or 1.3 with current ciphers (TLS alert {alert:?})")
            }
            "NoApplicationProtocol" => {
                "does not speak HTTP/1.1 (TLS alert NoApplicationProtocol)".into()
            }
            other => format!("ended the TLS handshake with alert {other}"),
        },
        E::PeerIncompatible(why) => {
            format!("offers no TLS version or cipher supported here ({why:?})")
        }
        other => printable(&other.to_string(), 200),
    }
}

/// Wraps rustls's errors in `io::Error`.
pub(crate) fn as_io(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn no_pem(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it contains no {what} in PEM form"),
    )
}

fn read(path: &std::path::Path, doing: &str) -> Result<Vec<u8>> {
    crate::files::read_limited(path, PEM_LIMIT).map_err(|error| Error::input(path, doing, error))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path, "reading certificates from")?;
    Ok(CertificateDer::pem_slice_iter(&bytes)
        .filter_map(std::result::Result::ok)
        .collect())
}

fn date(time: UnixTime) -> String {
    crate::time::date(time.as_secs())
}

fn is_ca_as_leaf(error: &CertificateError) -> bool {
    format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// webpki's rules with two optional exceptions: no checks at all, and a trusted certificate that is
/// a CA (CA:TRUE, as `openssl req -x509` makes them and Go and OpenSSL accept them).
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    own: Vec<CertificateDer<'static>>,
    skip: bool,
}

impl Verifier {
    fn is_own(&self, leaf: &CertificateDer<'_>) -> bool {
        self.own.iter().any(|own| own.as_ref() == leaf.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        match self.inner.verify_server_cert(leaf, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(problem))
                if is_ca_as_leaf(&problem) && self.is_own(leaf) =>
            {
                super::certificate::check_dates(leaf, now)?;
                let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
