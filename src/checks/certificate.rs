//! The end of a certificate's life, read from its bytes. Reads no more than that; judges no signature.

use std::time::Duration;

/// The time of this many days.
pub(super) const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// When the certificate ends, in seconds since the Unix epoch; `None` when these bytes are none.
///
/// Source: RFC 5280, section 4.1: `notAfter` of the `Validity` of a DER `Certificate`.
pub(super) fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = value(der, SEQUENCE)?;
    let (mut fields, _) = value(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = value(fields, VERSION)?.1;
    }
    // serial number, signature, issuer
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = value(fields, tag)?.1;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (_, rest) = [UTC_TIME, GENERALIZED_TIME].into_iter().find_map(|tag| value(validity, tag))?;
    let years = [(UTC_TIME, 2), (GENERALIZED_TIME, 4)];
    years.into_iter().find_map(|(tag, digits)| time(value(rest, tag)?.0, digits))
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The content of the value at the front, when it has this tag, and what comes after it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // no certificate needs more than four bytes for a length
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// `YYMMDDHHMMSSZ`, or with a year of four digits.
fn time(text: &[u8], year_digits: usize) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if text.len() != year_digits + 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = text.split_at(year_digits);
    let year: i64 = year.parse().ok()?;
    // RFC 5280, section 4.1.2.5.1: two digits are of 1950 to 2049
    let year = if year_digits == 4 { year } else { year + if year < 50 { 2_000 } else { 1_900 } };
    let mut parts = (0..5).map(|index| rest[2 * index..2 * index + 2].parse::<i64>());
    let mut part = || parts.next()?.ok();
    let (month, day, hour, minute, second) = (part()?, part()?, part()?, part()?, part()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// By the calendar that has no end of February in its years, as they begin in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("it signs itself").der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_time() {
        for ((year, month, day), expected) in [
            ((2026, 11, 30), 1_795_996_800),
            ((2024, 2, 29), 1_709_164_800),
            ((2000, 3, 1), 951_868_800),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((4096, 1, 1), 67_090_118_400),
        ] {
            assert_eq!(not_after(&made(year, month, day)), Some(expected), "{year}-{month}-{day}");
        }
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_are_read_or_refused(bytes: Vec<u8>, cut in 0_usize..600, at in 0_usize..600, byte: u8) {
            let _ = not_after(&bytes);
            let mut broken = made(2030, 1, 1);
            if let Some(place) = broken.get_mut(at) {
                *place = byte;
            }
            let _ = not_after(&broken);
            let _ = not_after(&broken[..cut.min(broken.len())]);
        }
    }
}
