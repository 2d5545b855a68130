//! DER (X.690), as far as public keys need it: a single encoding for each value, and no trailing
//! data.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;

/// The elements of a constructed value.
pub(super) struct Reader<'d>(pub &'d [u8]);

impl<'d> Reader<'d> {
    /// The content of the next element, which has this tag and the shortest form of its length.
    pub fn next(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81 | 0x82 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0_usize, |n, digit| n << 8 | usize::from(*digit));
                let least = if digits.len() == 1 { 0x80 } else { 0x100 };
                if length < least {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(content)
    }

    /// The same, without trailing data.
    pub fn last(mut self, tag: u8) -> Option<&'d [u8]> {
        let content = self.next(tag)?;
        self.0.is_empty().then_some(content)
    }
}

/// The bytes of a positive integer, without the zero that only says that it is positive.
pub(super) fn positive(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, rest @ ..] => rest.first().is_some_and(|b| *b >= 0x80).then_some(rest),
        [1..=0x7f, ..] => Some(content),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_one_form_and_an_integer_one_sign() {
        let last = |bytes: &[u8]| Reader(bytes).last(2).map(<[u8]>::to_vec);
        assert_eq!(last(&[2, 1, 5]), Some(vec![5]));
        assert_eq!(last(&[2, 0]), Some(vec![]));
        let long = [&[2, 0x81, 0x80][..], &[1; 0x80]].concat();
        assert_eq!(last(&long), Some(vec![1; 0x80]));
        for bytes in [
            &[][..],
            &[2],
            &[3, 1, 5],
            &[2, 1],
            &[2, 1, 5, 0],
            &[2, 0x81, 1, 5],
            &[2, 0x82, 0, 1, 5],
            &[2, 0x80, 5, 0, 0],
            &[2, 0x83, 0, 0, 1, 5],
        ] {
            assert_eq!(last(bytes), None, "{bytes:?}");
        }
        assert_eq!(positive(&[0, 0x80]), Some(&[0x80][..]));
        for bytes in [&[][..], &[0], &[0, 1], &[0x80]] {
            assert_eq!(positive(bytes), None, "{bytes:?}");
        }
    }
}
