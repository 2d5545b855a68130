//! The validity period of a certificate, the one thing that webpki does not expose.

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

/// Checks the validity period of a certificate whose chain is not checked (RFC 5280, section
/// 4.1.2.5).
pub(crate) fn check_dates(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (not_before, not_after) =
        validity(certificate.as_ref()).ok_or(CertificateError::BadEncoding)?;
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        }
        .into());
    }
    Ok(())
}

fn validity(certificate: &[u8]) -> Option<(UnixTime, UnixTime)> {
    const SEQUENCE: u8 = 0x30;
    let (tag, outer, _) = element(certificate)?;
    let (inner_tag, mut fields, _) = element(outer)?;
    if tag != SEQUENCE || inner_tag != SEQUENCE {
        return None;
    }
    // version (explicit, may be absent), serial number, signature algorithm, issuer, validity
    let (first, _, rest) = element(fields)?;
    if first == 0xa0 {
        fields = rest;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, from, rest) = element(validity)?;
    let (until_tag, until, _) = element(rest)?;
    Some((time(tag, from)?, time(until_tag, until)?))
}

/// Tag, content and remainder of the first DER element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<UnixTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (0x17, 12) => {
            let short: u64 = text[..2].parse().ok()?;
            (
                if short < 50 {
                    2000 + short
                } else {
                    1900 + short
                },
                &text[2..],
            )
        }
        (0x18, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let seconds = crate::time::from_civil(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?)?;
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        seconds,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        let seconds = |tag, text: &str| time(tag, text.as_bytes()).map(|t| t.as_secs());
        assert_eq!(seconds(0x17, "700101000000Z"), Some(0));
        assert_eq!(seconds(0x18, "20260101000000Z"), Some(1_767_225_600));
        assert_eq!(seconds(0x17, "2601010000Z"), None);
        assert_eq!(seconds(0x17, "26010100000\u{e9}Z"), None);
    }

    #[test]
    fn the_dates_of_a_real_certificate_are_found() {
        let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2021, 1, 2);
        let made = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        let (from, until) = validity(made.der()).unwrap();
        assert_eq!(
            (from.as_secs(), until.as_secs()),
            (1_577_923_200, 1_609_545_600)
        );
        for cut in 0..60 {
            assert!(validity(&made.der()[..cut]).is_none());
        }
    }
}
