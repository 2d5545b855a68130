//! What may help against an error, in terms of the library; a program says it in its own.

/// What may help against an error. Messages name the problem; how a program's user gets at the
/// option that helps is the program's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Give credentials: [`crate::ClientBuilder::credentials`], or one of the places where they are
    /// looked up.
    Credentials,
    /// Add the registry's CA, or a certificate that is one's own CA:
    /// [`crate::ClientBuilder::add_root_certificates`].
    RootCertificates,
    /// Identify with a certificate: [`crate::ClientBuilder::identity`].
    Identity,
    /// Say what time it is: [`crate::ClientBuilder::verification_time`].
    VerificationTime,
    /// The registry seems to speak plain HTTP: [`crate::ClientBuilder::insecure`].
    PlainHttp,
    /// The registry speaks HTTPS: leave [`crate::ClientBuilder::insecure`] out.
    Https,
    /// Name a platform: [`crate::Repository::image`].
    Platform,
    /// [`crate::Repository::tags`] lists the tags of this repository.
    Tags(String),
    /// [`crate::Repository::platforms`] lists the images of this reference.
    Platforms(String),
    /// Allow larger layers: [`crate::Pull::inflate`].
    InflateLimit,
    /// Store layers as they are: leave [`crate::Pull::inflate`] out.
    NoInflate,
    /// Name a base that has the missing layers: [`crate::Pull::join`].
    Base,
    /// Let [`crate::verify`] say what is wrong with the archive.
    Verify,
    /// Choose another path for the output.
    OtherPath,
    /// Decompress the archive with this program first.
    Decompress(&'static str),
}
