//! Generated images: real layers with correct diff IDs, in all shapes that registries serve.

use super::{Content, Registry};
use sha2::Digest as _;
use std::io::{Read, Write as _};
use std::sync::Arc;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub fn sha256(bytes: &[u8]) -> String {
    hex("sha256:", &sha2::Sha256::digest(bytes))
}

pub fn sha512(bytes: &[u8]) -> String {
    hex("sha512:", &sha2::Sha512::digest(bytes))
}

pub fn hex(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |text, byte| {
        text + &format!("{byte:02x}")
    })
}

/// Bytes without end that no compressor makes smaller, the same for the same seed.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn word(&mut self) -> [u8; 8] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    }
}

impl Read for Noise {
    /// Whole words only, so that what comes does not depend on how it is asked for.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let whole = buffer.len() / 8 * 8;
        let (words, rest) = buffer.split_at_mut(whole);
        for word in words.as_chunks_mut::<8>().0 {
            word.copy_from_slice(&self.word());
        }
        if whole > 0 {
            return Ok(whole);
        }
        let word = self.word();
        rest.copy_from_slice(&word[..rest.len()]);
        Ok(rest.len())
    }
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Noise::new(seed).read_exact(&mut bytes).unwrap();
    bytes
}

/// A layer's uncompressed tar with one file of noise.
pub fn layer_tar(seed: u64, length: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(length as u64);
    header.set_mode(0o644);
    builder
        .append_data(
            &mut header,
            format!("file-{seed}"),
            &noise(seed, length)[..],
        )
        .unwrap();
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One blob that an image refers to.
#[derive(Clone)]
pub struct Blob {
    pub digest: String,
    pub media_type: String,
    pub content: Content,
    pub diff_id: String,
    /// What the manifest says its size is.
    pub size: String,
    pub urls: Vec<String>,
}

impl Blob {
    pub fn layer(seed: u64, length: usize) -> Self {
        let tar = layer_tar(seed, length);
        Self::bytes(GZIP, gzip(&tar), sha256(&tar))
    }

    pub fn bytes(media_type: &str, bytes: Vec<u8>, diff_id: String) -> Self {
        Self {
            digest: sha256(&bytes),
            media_type: media_type.to_owned(),
            size: bytes.len().to_string(),
            content: Content::Bytes(Arc::new(bytes)),
            diff_id,
            urls: Vec::new(),
        }
    }

    /// A plain layer of zeros, which is never in memory as a whole.
    pub fn zeros(length: u64) -> Self {
        let mut hasher = sha2::Sha256::new();
        let part = vec![0; 1 << 20];
        let mut left = length;
        while left > 0 {
            let take = left.min(part.len() as u64) as usize;
            hasher.update(&part[..take]);
            left -= take as u64;
        }
        let digest = hex("sha256:", &hasher.finalize());
        Self {
            diff_id: digest.clone(),
            digest,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            content: Content::Zeros(length),
            size: length.to_string(),
            urls: Vec::new(),
        }
    }

    pub fn descriptor(&self) -> String {
        let urls = if self.urls.is_empty() {
            String::new()
        } else {
            format!(r#","urls":{:?}"#, self.urls)
        };
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{}{urls}}}"#,
            self.media_type, self.digest, self.size
        )
    }

    pub fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    pub fn data(&self) -> Vec<u8> {
        match &self.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::Zeros(length) => vec![0; *length as usize],
        }
    }
}

/// An image to be put into a registry.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Blob>,
    pub config: Blob,
    pub media_type: String,
    /// What the manifest says its type is; left out where empty.
    pub body_type: String,
    /// Further members of the manifest, each with a comma behind it.
    pub more: String,
}

impl Image {
    pub fn new(layers: Vec<Blob>) -> Self {
        Self::for_platform("amd64", "", layers)
    }

    pub fn for_platform(architecture: &str, variant: &str, layers: Vec<Blob>) -> Self {
        let ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("{:?}", layer.diff_id))
            .collect();
        let variant = if variant.is_empty() {
            String::new()
        } else {
            format!(r#""variant":"{variant}","#)
        };
        let text = format!(
            r#"{{"architecture":"{architecture}",{variant}"os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        Self {
            layers,
            config: Blob::bytes(OCI_CONFIG, text.into_bytes(), String::new()),
            media_type: OCI_MANIFEST.into(),
            body_type: OCI_MANIFEST.into(),
            more: String::new(),
        }
    }

    /// Small, with three layers that depend on the seed.
    pub fn small(seed: u64) -> Self {
        Self::new(
            (0..3)
                .map(|layer| Blob::layer(seed * 10 + layer, 20_000 + layer as usize))
                .collect(),
        )
    }

    pub fn with_config(mut self, text: &str) -> Self {
        self.config = Blob::bytes(OCI_CONFIG, text.as_bytes().to_vec(), String::new());
        self
    }

    pub fn docker(mut self) -> Self {
        self.media_type = DOCKER_MANIFEST.into();
        self.body_type = DOCKER_MANIFEST.into();
        self.config.media_type = "application/vnd.docker.container.image.v1+json".into();
        for layer in &mut self.layers {
            layer.media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        }
        self
    }

    pub fn manifest(&self) -> String {
        let kind = if self.body_type.is_empty() {
            String::new()
        } else {
            format!(r#""mediaType":"{}","#, self.body_type)
        };
        let layers: Vec<String> = self.layers.iter().map(Blob::descriptor).collect();
        format!(
            r#"{{"schemaVersion":2,{kind}{}"config":{},"layers":[{}]}}"#,
            self.more,
            self.config.descriptor(),
            layers.join(",")
        )
    }

    /// Bytes of all its layers.
    pub fn size(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.data().len() as u64);
        sizes.sum()
    }

    pub fn digest(&self) -> String {
        sha256(self.manifest().as_bytes())
    }

    /// As an entry of an index.
    pub fn entry(&self, platform: &str) -> String {
        let text = self.manifest();
        let platform = if platform.is_empty() {
            String::new()
        } else {
            format!(r#","platform":{platform}"#)
        };
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{}{platform}}}"#,
            self.media_type,
            self.digest(),
            text.len()
        )
    }

    /// Puts blobs and the manifest by digest.
    pub fn push_untagged(&self, registry: &Registry, repository: &str) {
        for blob in self.layers.iter().chain([&self.config]) {
            registry.put(
                &format!("/v2/{repository}/blobs/{}", blob.digest),
                "application/octet-stream",
                blob.content.clone(),
            );
        }
        put_manifest(
            registry,
            repository,
            &self.digest(),
            &self.media_type,
            &self.manifest(),
        );
    }

    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) {
        self.push_untagged(registry, repository);
        put_manifest(
            registry,
            repository,
            tag,
            &self.media_type,
            &self.manifest(),
        );
        registry.put_tag(repository, tag);
    }
}

pub fn put_manifest(
    registry: &Registry,
    repository: &str,
    target: &str,
    media_type: &str,
    text: &str,
) {
    let content = Content::Bytes(Arc::new(text.as_bytes().to_vec()));
    registry.put(
        &format!("/v2/{repository}/manifests/{target}"),
        media_type,
        content,
    );
}

/// `{"os":"linux","architecture":...}`.
pub fn platform(os: &str, architecture: &str, variant: &str) -> String {
    let variant = if variant.is_empty() {
        String::new()
    } else {
        format!(r#","variant":"{variant}""#)
    };
    format!(r#"{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
}

/// An index of entries, put under a target; its digest.
pub fn push_index(
    registry: &Registry,
    repository: &str,
    target: &str,
    media_type: &str,
    entries: &[String],
) -> String {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#,
        entries.join(",")
    );
    put_manifest(registry, repository, target, media_type, &text);
    let digest = sha256(text.as_bytes());
    put_manifest(registry, repository, &digest, media_type, &text);
    digest
}
