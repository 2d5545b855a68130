//! Fills another registry by the distribution specification's chunked upload. A layer is made while
//! it is sent, so that it may be larger than memory.

use super::registry::Content;
use super::registry::image::{Blob, Image, Noise, hex};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read as _, Write};

/// One PATCH carries so much.
const PART: usize = 8 << 20;

pub struct Target {
    pub base: String,
    pub login: Option<(String, String)>,
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

    /// Where the upload goes on, as the registry last said.
    fn location(&self, response: &minreq::Response) -> String {
        let mut headers = response.headers.iter();
        let (_, location) = headers
            .find(|(name, _)| name.eq_ignore_ascii_case("location"))
            .expect("the registry says where to upload to");
        if location.starts_with('/') {
            format!("{}{location}", self.base)
        } else {
            location.clone()
        }
    }

    fn upload(&self, repository: &str) -> Upload<'_> {
        let url = format!("{}/v2/{repository}/blobs/uploads/", self.base);
        Upload {
            target: self,
            location: self.location(&self.send(minreq::post(url))),
            part: Vec::new(),
            hasher: Sha256::new(),
            size: 0,
        }
    }

    /// Layers of noise, as [`Blob::layer`] makes them, with what describes them but no content.
    pub fn layer(&self, repository: &str, seed: u64, length: u64) -> Blob {
        let mut tar = Hashing {
            to: flate2::write::GzEncoder::new(self.upload(repository), flate2::Compression::none()),
            hasher: Sha256::new(),
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(length);
        header.set_mode(0o644);
        header.set_path(format!("file-{seed}")).unwrap();
        header.set_cksum();
        tar.write_all(header.as_bytes()).unwrap();
        io::copy(&mut Noise::new(seed).take(length), &mut tar).unwrap();
        // The file's last block is filled up, and two empty ones end the archive.
        let rest = (512 - length % 512) % 512 + 1024;
        io::copy(&mut io::repeat(0).take(rest), &mut tar).unwrap();
        let diff_id = hex("sha256:", &tar.hasher.finalize());
        let (digest, size) = tar.to.finish().unwrap().finish();
        Blob {
            digest,
            media_type: super::registry::image::GZIP.into(),
            content: Content::Bytes(Default::default()),
            diff_id,
            size: size.to_string(),
            urls: Vec::new(),
        }
    }

    pub fn blob(&self, repository: &str, blob: &Blob) {
        let mut upload = self.upload(repository);
        upload.write_all(&blob.data()).unwrap();
        assert_eq!(upload.finish().0, blob.digest);
    }

    /// The config and the manifest, once the layers are there.
    pub fn manifest(&self, repository: &str, tag: &str, image: &Image) {
        self.blob(repository, &image.config);
        self.document(repository, tag, &image.media_type, image.manifest());
    }

    /// A manifest or an index.
    pub fn document(&self, repository: &str, target: &str, media_type: &str, text: String) {
        let url = format!("{}/v2/{repository}/manifests/{target}", self.base);
        let request = minreq::put(url).with_header("Content-Type", media_type);
        self.send(request.with_body(text));
    }
}

/// A blob on its way; what is written to it is hashed.
struct Upload<'t> {
    target: &'t Target,
    location: String,
    part: Vec<u8>,
    hasher: Sha256,
    size: u64,
}

impl Upload<'_> {
    fn send_part(&mut self) {
        let part = std::mem::take(&mut self.part);
        let request = minreq::patch(&self.location)
            .with_header("Content-Type", "application/octet-stream")
            .with_header(
                "Content-Range",
                format!("{}-{}", self.size, self.size + part.len() as u64 - 1),
            );
        self.size += part.len() as u64;
        let response = self.target.send(request.with_body(part));
        self.location = self.target.location(&response);
    }

    /// Digest and size.
    fn finish(mut self) -> (String, u64) {
        if !self.part.is_empty() {
            self.send_part();
        }
        let digest = hex("sha256:", &self.hasher.finalize());
        let joint = if self.location.contains('?') {
            '&'
        } else {
            '?'
        };
        let url = format!("{}{joint}digest={digest}", self.location);
        self.target
            .send(minreq::put(url).with_header("Content-Length", "0"));
        (digest, self.size)
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.send_part();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what passes.
struct Hashing<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
