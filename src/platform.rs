//! Platforms: their normal form, and which entry of an index fits best.
//!
//! Names follow the image specification (image-index.md, "platform"): operating system, Go's name
//! of the architecture, variant. Equality and compatibility follow containerd's platforms package,
//! but never across architectures: arm64 never falls back to arm.

use crate::error::{Error, Result, UntrustedText};
use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and variant, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    os: UntrustedText,
    architecture: UntrustedText,
    /// Empty if there is none, or it is the usual one.
    variant: UntrustedText,
}

impl Platform {
    /// Normalizes a platform's three parts: `aarch64` is `arm64`, `arm` without a variant is
    /// `arm/v7`, `arm64/v8` is `arm64`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" {
            "darwin".to_owned()
        } else {
            os
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("armv5" | "armv5l" | "armv5tel" | "armv5tejl", "") => ("arm", "v5"),
            ("armv6" | "armv6l", "") => ("arm", "v6"),
            ("armv7" | "armv7l", "") => ("arm", "v7"),
            ("armv8l", "") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            os: UntrustedText(os),
            architecture: UntrustedText(architecture.to_owned()),
            variant: UntrustedText(variant.to_owned()),
        }
    }

    /// The platform of this machine: always Linux, the architecture that the program was built for,
    /// and on ARM the variant from the kernel's machine name.
    ///
    /// `/proc/cpuinfo` is not used: it says "CPU architecture: 7" on an ARMv6 Raspberry Pi.
    pub fn host() -> Self {
        let machine = rustix::system::uname();
        Self::of_machine(std::env::consts::ARCH, &machine.machine().to_string_lossy())
    }

    fn of_machine(built_for: &str, machine: &str) -> Self {
        let little = cfg!(target_endian = "little");
        match built_for {
            "arm" if machine == "aarch64" => Self::new("linux", "arm", "v8"),
            "arm" if machine.starts_with("armv") => Self::new("linux", machine, ""),
            "powerpc64" if little => Self::new("linux", "ppc64le", ""),
            "powerpc64" => Self::new("linux", "ppc64", ""),
            "loongarch64" => Self::new("linux", "loong64", ""),
            "mips64" if little => Self::new("linux", "mips64le", ""),
            "mips" if little => Self::new("linux", "mipsle", ""),
            other => Self::new("linux", other, ""),
        }
    }

    /// The operating system, such as `linux`.
    pub fn os(&self) -> &str {
        &self.os.0
    }

    /// The architecture, such as `arm64`.
    pub fn architecture(&self) -> &str {
        &self.architecture.0
    }

    /// The variant, such as `v7`; empty if there is none or it is the usual one.
    pub fn variant(&self) -> &str {
        &self.variant.0
    }

    /// How well an image for `offered` fits this platform: 0 is exact, more is an older variant,
    /// `None` does not run.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let lowest = match self.architecture.0.as_str() {
            "amd64" => 100,
            "arm64" => 800,
            "arm" => 700,
            _ => return (self.variant == offered.variant).then_some(0),
        };
        let own = level(&self.variant.0, lowest)?;
        let theirs = level(&offered.variant.0, lowest)?;
        own.checked_sub(theirs)
    }
}

/// `v8.2` as 802, so that variants can be compared.
fn level(variant: &str, absent: u32) -> Option<u32> {
    if variant.is_empty() {
        return Some(absent);
    }
    let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
        Some((major, minor)) => (major, minor.parse().ok()?),
        None => (variant.strip_prefix('v')?, 0),
    };
    let major: u32 = major.parse().ok()?;
    (major < 100 && minor < 100).then_some(major * 100 + minor)
}

impl FromStr for Platform {
    type Err = Error;

    /// `OS/ARCH`, `OS/ARCH/VARIANT`, or an architecture alone, which means Linux.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(
                text,
                "a platform is OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64 or linux/arm/v7",
            )
        };
        let good = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(good) {
            return Err(wrong());
        }
        match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => Err(wrong()),
            [architecture] => Ok(Self::new("linux", architecture, "")),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.0.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_brought_into_normal_form() {
        for (given, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/i386", "linux/386"),
            ("Linux/RISCV64", "linux/riscv64"),
        ] {
            assert_eq!(platform(given).to_string(), normal, "{given}");
        }
        for wrong in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "a/b/c/d",
            "linux/am d64",
            "linux/../x",
        ] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_host_is_told_by_the_kernel() {
        for (built_for, machine, expected) in [
            ("x86_64", "x86_64", "linux/amd64"),
            ("arm", "armv6l", "linux/arm/v6"),
            ("arm", "armv7l", "linux/arm/v7"),
            ("arm", "armv8l", "linux/arm/v8"),
            ("arm", "aarch64", "linux/arm/v8"),
            ("aarch64", "aarch64", "linux/arm64"),
            ("riscv64", "riscv64", "linux/riscv64"),
            ("loongarch64", "loongarch64", "linux/loong64"),
        ] {
            assert_eq!(
                Platform::of_machine(built_for, machine).to_string(),
                expected
            );
        }
    }

    #[test]
    fn older_variants_serve_newer_machines_and_no_other_architecture_does() {
        let rank = |wanted: &str, offered: &str| platform(wanted).rank(&platform(offered));
        assert_eq!(rank("linux/arm/v7", "linux/arm"), Some(0));
        assert!(rank("linux/arm/v7", "linux/arm/v6") < rank("linux/arm/v7", "linux/arm/v5"));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/arm64", "linux/arm/v7"), None);
        assert_eq!(rank("linux/amd64", "linux/386"), None);
        assert_eq!(rank("linux/amd64", "windows/amd64"), None);
        assert_eq!(rank("linux/arm64/v9.2", "linux/arm64"), Some(102));
        assert_eq!(rank("linux/arm64", "linux/arm64/v9"), None);
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(rank("linux/riscv64", "linux/riscv64"), Some(0));
    }
}
