//! The manual page's sections beside the flags, as data: archives, credentials, trust, JSON.
//!
//! [`super::man`] lays them out. The members of JSON documents stand before an item's first full
//! stop, with explanations in parentheses; a test compares them with what the program prints.

/// A piece of a section.
pub(super) enum Part {
    Text(&'static str),
    /// A term and its explanation.
    Item(&'static str, &'static str),
}

use Part::{Item, Text};

pub(super) const SECTIONS: &[(&str, &[Part])] = &[
    ("ARCHIVES", ARCHIVES),
    ("LISTS AND LOCKS", LISTS),
    ("RESUMING", RESUMING),
    ("REUSING AND VERIFYING", EXISTING),
    ("SIGNATURES", SIGNATURES),
    ("LIMITS", LIMITS),
    ("CREDENTIALS", CREDENTIALS),
    ("CERTIFICATES, MIRRORS, PROXIES", TRUST),
    ("JSON OUTPUT", JSON),
    ("JSON PROGRESS", EVENTS),
];

const ARCHIVES: &[Part] = &[
    Text(
        "One tar is a docker-archive and an OCI layout at once: oci-layout, index.json, manifest.json, then manifest, config and layers under blobs/, each once and compressed as it came, so that digests are preserved. All entries are plain files with a fixed owner, mode and time: the same image gives the same bytes.",
    ),
    Text(
        "You never silently get another platform. Either an entry of the index matches (an older variant, such as arm/v6 on arm/v7, with a warning), or the error lists the platforms that exist. Artifacts and index entries that cannot be used (without a size, with an unknown digest algorithm, of a foreign type, gone) are skipped, and named with --verbose; --all-platforms needs all entries. A config, manifest or small layer that the registry lacks is taken from its descriptor's data field.",
    ),
    Item(
        "Streams",
        "-o - writes the same bytes in order while they arrive, without disk and within the same memory. A broken connection is continued at the byte where it broke, but a new run starts over. If the reader goes away, the status is 7. An output that is /dev/stdout, /dev/fd/N, >(command), a FIFO, a socket, a device, or a link to one is written the same way and is not replaced. If -o names a link to a file, the link stays and its target is replaced.",
    ),
    Item(
        "Directories",
        "--no-tar leaves the archive's files in a directory, --no-rm beside the archive; --layers-dir names it. It resumes as an archive does. To make an archive of it: tar -C DIR -cf FILE oci-layout index.json manifest.json blobs. The archive that tar -C DIR -c . makes has ./ before each name; Docker and podman load it, crane does not.",
    ),
    Item(
        "Uncompressed layers",
        "--gunzip inflates gzip and zstd and checks every diff ID. Layers whose inflated size is stated in their gzip trailer or zstd frame are inflated once, on all processors; if a statement is missing or wrong, all are inflated twice, to measure and to write. The compressed layers stay on disk until the archive is done; with -o - no disk is used, and layers are downloaded twice. The manifest changes, and so does its digest. A layer that inflates to more than a hundred times its size and more than 1 GiB is refused (--inflate-limit), and so is a zstd window of more than 8 MiB, which is memory on top of the usual.",
    ),
    Item(
        "Root file systems",
        "--format rootfs puts the layers of one image together as engines do: whiteouts and opaque directories are applied, hard links kept, and with them owners, devices, extended attributes and exact times; each layer is checked against its diff ID. The same image gives the same bytes. The upper layers come first, so unpack it with: tar --delay-directory-restore --xattrs --xattrs-include=* --numeric-owner -xpf FILE. A directory that only a lower layer describes may be in it twice, and so is what a layer has twice: the last entry counts. A path that climbs out, a name that is a directory and a file in one layer, and a hard link to nothing are refused. Memory stays below 8 MiB up to 50000 paths and below 80 MiB up to a million, the most. Until the tar is finished the disk also holds the layers. With -o - there is no disk; a layer is downloaded twice if one of its files was replaced but has a hard link that was not.",
    ),
    Item(
        "Compressed archives",
        "--xz keeps the tar until it is compressed; with -o - it needs no disk. Layers arrive compressed, and such data bypasses the compressor: only --gunzip --xz makes a small archive, slowly.",
    ),
    Item(
        "Several images",
        "dockersave debian alpine -o both.tar has each layer once and all tags. --all-platforms keeps the index as it is, with its digest and attestations; a docker-archive has no place for that, so it is an OCI layout alone. A pull by digest has no tag, and none is invented.",
    ),
    Item(
        "Names",
        "A default name replaces only an archive of the same repository: ghcr.io/owner/app:1 does not replace the owner-app-1.tar of quay.io/owner/app:1, unless -o or --tarname asks for it.",
    ),
];

const LISTS: &[Part] = &[
    Text(
        "--from FILE reads images from a file. Each goes into an archive of its own in --working-dir, or all go into the one that -o names. What the archives share is downloaded once. A file may have 1 MiB, lines of 4096 bytes, and 1000 images. Its content decides what it is:",
    ),
    Item(
        "A list",
        "One image per line. Behind it, separated by blanks, may be a platform, which has a slash (linux/arm64), and the archive's file name, which ends in .tar or .tar.xz. # at the start of a word begins a comment.",
    ),
    Item(
        "YAML",
        "A compose file or a Kubernetes manifest in block style. Every image: is read, with the platform: beside it. This is no YAML parser: whatever could give an image another way is an error that names the line, and nothing is pulled. Such are flow style, block scalars, anchors around an image, aliases, variables, templates, include, and extends with a file.",
    ),
    Item(
        "A lock",
        "What --lock FILE wrote: for each image a line of eight fields separated by tabs, with - for none. They are the reference, its platform, the digests of index and manifest, the archive's size, SHA-256 and file name, and the image's name in it if --as gave one. Lines that start with # are the head, which also has the flags that change archives (--gunzip, --xz, --format). To check archives without dockersave: awk -F'\\t' '!/^#/{print $6\" *\"$7}' images.lock | sha256sum -c.",
    ),
    Text(
        "--from images.lock pulls exactly what a lock says, with its flags: by digest, so no tag is asked for. An archive that is here with the right SHA-256 needs no request at all. If the SHA-256 of a new archive is another, because the lock was changed or another version of dockersave lays archives out differently, it is discarded before it gets its name, and the status is 6.",
    ),
    Text(
        "--lock beside a list or images renews the lock. If it exists, each tag is asked for with HEAD; an archive that is here is only hashed (with --quick-check, only its size is compared) unless its tag names something else. A line is kept if its image cannot be pulled, and dropped if it is no longer listed. The lock is replaced at once and only if it changes, also after failures and interrupts. --check prints what a renewal would change, with status 10 if anything, and pulls nothing. A lock cannot describe --all-platforms, --keep-signatures, --keep-referrers, --base, directories and streams.",
    ),
];

const RESUMING: &[Part] = &[
    Text(
        "A download grows in NAME.tar.partial. After any failure the same command continues; what is there is hashed again before it is trusted. An interrupt (Ctrl-C) keeps the partial file, a second one ends at once. Signals that are ignored at the start (nohup, trap) stay ignored. A second run on the same output fails at once. --restart discards a partial download.",
    ),
    Text(
        "A partial file or directory is used only if it belongs to this user, nobody else can write to it, and it is not a link. Anything else is refused.",
    ),
];

const EXISTING: &[Part] = &[
    Text(
        "--base OLD makes a thin archive: without the layers that the target already has. Docker finds a layer only on top of the same layers as before, so only the lowest ones are left out; containerd's stores find any, and --base-any says that the target has one. All documents are complete, so digests and signatures hold. Annotations in index.json name the missing layers, and identify the full archive by its size and by the digest of its plan, the list of its entries with their digests. Where the base is missing, most loaders fail, but docker load with a containerd store reports success from version 27.2 on: check first, as cross/packaging/loader in the source does.",
    ),
    Text(
        "--join THIN --base OLD makes the full archive offline, with the same bytes as a full pull: every blob and the plan's digest are checked. --verify THIN exits with status 9, or with 0 if --base names archives that have the missing layers, which it hashes, or lists that name them.",
    ),
    Text(
        "--reuse takes blobs from an archive or directory of any tool and downloads the rest. Everything taken is hashed first. The archive that is about to be replaced is used without being named. Its layers must be as the registry has them (dockersave, ctr, crane, skopeo to OCI and to dir:, containerd's content store in /var/lib/containerd/io.containerd.content.v1.content), or uncompressed (docker save, podman save), which only --gunzip can use. Layers that a tool recompressed (podman to OCI) have other digests. If nothing can be used, a note says why. A compressed archive must be decompressed first (gzip -dk, zstd -dk, xz -dk).",
    ),
    Text(
        "--verify reads an archive of any tool, a directory or, with -, a pipe, and needs no registry. It checks each blob's digest, manifests, configs, diff IDs, and the tar to its last byte, prints a line for each defect, and exits with status 6 if there is one. An archive compressed with gzip or zstd is inflated on the way; for others, also those of --xz: xz -dc FILE | dockersave --verify -. For a partial file it says how much is here and verified. After a defect in an archive made by dockersave, pulling its images to the same path again downloads only what is bad.",
    ),
    Text(
        "Loaders read tars and JSON differently. Anything that two of them can read in two ways is a defect: a name or a size given twice, headers of mixed dialects, links where a loader looks, a key in another case (Layers) or given twice. Such documents are refused from a registry, too.",
    ),
    Text(
        "Layers are inflated to check their diff IDs. A layer is skipped if its zstd window is larger than 8 MiB (--inflate-memory, on top of the usual memory), if it is compressed with anything else, or if all layers together inflate to more than a hundred times the archive and 64 MiB. The archive is then \"sound, 1 layer not inflated\", with status 8.",
    ),
];

const SIGNATURES: &[Part] = &[
    Text(
        "--signed-by needs a signature by one of the keys over the manifest, or over an index that names it. Signatures of cosign are understood as bundles (cosign 3), as referrers and as sha256-....sig tags (cosign 1 and 2), and found by the referrers API or its fallback tag. If none counts, the status is 6, the message says what was found, and no layer is downloaded. With --all-platforms the index itself must be signed. An index without a signature may lead to a signed manifest, but only for the platform in the image's config.",
    ),
    Text(
        "--keep-signatures puts signatures and index into the archive as blobs. --verify --signed-by checks each image of the archive without a network, also from a pipe. cosign verify --local-image takes the unpacked archive if the manifest itself has a bundle. With --json, images and --verify have signatures with the members key, covers, form, predicateType, identity and claims, and --verify has unsigned, a list of texts.",
    ),
    Text(
        "--policy differs from podman: any requirement but reject, insecureAcceptAnything and sigstoreSigned with public keys in files or keyData refuses the image. A bundle names no repository, so it counts only if signedIdentity is left out; for older signatures podman's default applies then. Requirements of a policy and --signed-by must all be met.",
    ),
    Text(
        "Transparency logs, certificates and expiry are not checked. For keyless signatures and notation, verify on a machine with their tools and pull the digest that they print: dockersave IMAGE@sha256:...",
    ),
];

const LIMITS: &[Part] = &[Text(
    "Memory stays below 8 MiB, whatever the image's size; --xz takes up to 40 MiB, and a zstd window comes on top where layers are inflated. For this, the manifests and configs of a run may have 4.25 MiB together (a single manifest 4 MiB, with --gunzip 512 KiB), with 512 bytes for each layer, and an image 1024 layers. Every wait ends, and every size is bounded.",
)];

const CREDENTIALS: &[Part] = &[
    Text(
        "Credentials are looked up when a registry asks for them. The first source with a match wins: --user with --password-stdin, --ilogin or --password, for the registry in --user HOST=NAME, or else the only one; DOCKERSAVE_USER and DOCKERSAVE_PASSWORD, for the registry in DOCKERSAVE_REGISTRY or else the first image's; --authfile (then no other file); $DOCKER_AUTH_CONFIG; $REGISTRY_AUTH_FILE; $DOCKER_CONFIG/config.json or ~/.docker/config.json; $XDG_RUNTIME_DIR/containers/auth.json; $XDG_CONFIG_HOME/containers/auth.json. Files are read as Docker reads them: keys in any case, and null or wrongly typed entries are skipped. Helpers (credHelpers, credsStore) have 20 seconds. A broken file or a missing helper never fails a public pull; if the registry refuses access, the message names it. --verbose says where a credential came from, never what it is.",
    ),
    Text(
        "Passwords, tokens and whatever precedes an @ in an address are left out of every message, even if a server or a helper echoes them. A secret of fewer than four characters cannot be distinguished from ordinary words; dockersave's own words are searched for secrets of eight or more. Control, invisible and direction-changing characters from outside are shown as ?, and escaped in JSON; --metadata gives a file or a pipe the registry's own bytes.",
    ),
];

const TRUST: &[Part] = &[
    Item(
        "Certificates",
        "These are trusted: Mozilla's built-in roots; SSL_CERT_FILE and SSL_CERT_DIR; docker/certs.d/HOST[:PORT]/*.crt and containers/certs.d/HOST[:PORT]/*.crt below /etc and ~/.config, for that registry alone, with X.cert and X.key as client certificate; and --cacert, --cert, --key.",
    ),
    Item(
        "The clock",
        "A clock before the date of this program's source counts as that date, with a warning. A certificate that is newer than the program then needs --date YYYY-MM-DD, or the clock set.",
    ),
    Item(
        "Mirrors",
        "--mirror [SCHEME://]HOST[:PORT][/PREFIX][?ns] is asked first for everything that has a digest. A mirror for many registries, such as Spegel or Dragonfly, gets ?ns=REGISTRY, as from containerd: always if its URL ends in ?ns, otherwise after it answered 400 or 404 without. If a mirror fails, disconnects or serves wrong content, the registry takes over. Tags are resolved at the registry with HEAD, which does not count as a pull, unless --mirror-tags is given. A mirror gets the credentials that files hold for its own name, never those of the command line.",
    ),
    Item(
        "Proxies",
        "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are used in both spellings, with domains, networks and ports, as by Go and curl. Names are resolved at the proxy.",
    ),
];

const JSON: &[Part] = &[
    Text(
        "--json prints one JSON value in ASCII on standard output. On failure see standard error and the exit status; the output may then be truncated. --sha, --metadata, --platforms and --dry-run request no layer; --tags is never counted as a pull. The members are:",
    ),
    Item(
        "pull",
        "path, size, images, sha256 (of the archive; null for a directory), unchanged (true if it was left as it was), downloaded (bytes from the network), kept (bytes that were here). With --base also missing. Several archives give an array; an archive that failed has reference, status and error instead.",
    ),
    Item(
        "--dry-run",
        "path, size (null with --gunzip, --xz and --format rootfs), images, unchanged (true if a pull would leave it as it is), download (bytes to download), here (bytes already here), layers. With --base also missing, and above: the bytes that only --base-any leaves out.",
    ),
    Item(
        "images",
        "reference, name (in the archive, or null), digest, platform (null if the config names none).",
    ),
    Item("layers", "digest, size, here."),
    Item(
        "--sha",
        "reference, platform (as requested, or null), digest.",
    ),
    Item(
        "--metadata",
        "reference, platform, digest, mediaType, size, manifest (the registry's JSON, with non-ASCII characters escaped).",
    ),
    Item(
        "--config",
        "reference, platform, digest, size, config (the registry's JSON).",
    ),
    Item("--platforms", "reference, digest, platforms."),
    Item(
        "platforms",
        "platform (null if unknown), digest, size (of its layers; null if the registry lacks it).",
    ),
    Item("--tags", "repository, tags."),
    Item(
        "--verify",
        "archive, sound (true or false), images, blobs, compressed (layers that were not inflated: status 8), defects, unchecked, absent (lists of texts), missing, needed (how many of them no --base has: status 9).",
    ),
    Item(
        "missing",
        "digest, size, diffId (null for an image of several platforms). A layer that a thin archive lacks.",
    ),
    Item("defects", "subject, what."),
    Item(
        "--check",
        "reference, archive, state (unchanged, changed, new or removed), locked (the digest in the lock, or null), found (the digest now, or null). Several images give an array.",
    ),
];

const EVENTS: &[Part] = &[
    Text(
        "--progress json prints one object per line on standard error, with event as its first member. done or failed is the last one; of several archives each has one, and a final failed follows if any failed. A flag that cannot be parsed is reported as plain text; any other usage error is a failed object, too.",
    ),
    Item("started", "total, layers. Bytes and number of all layers."),
    Item(
        "progress",
        "done, total, downloaded, rate. Once a second and at the end: bytes in the archive, of how many, from the network in this run; bytes per second.",
    ),
    Item(
        "layer",
        "layer, digest, size, kept. A layer is in the archive and verified: its number from 0, and how much of it was here already.",
    ),
    Item(
        "note",
        "level (debug, info or warning), text. What a person should know; with --verbose each request, as debug.",
    ),
    Item(
        "stage",
        "doing, total. The archive is converted (inflating, compressing, writing) or read (checking, hashing); progress counts from zero again.",
    ),
    Item(
        "finishing",
        "(no members). All layers are here; the archive is being synced to disk.",
    ),
    Item(
        "done",
        "path, size, unchanged, downloaded, kept. The archive has its name.",
    ),
    Item(
        "failed",
        "status, text. The exit status (130 for Ctrl-C) and the reason.",
    ),
];
