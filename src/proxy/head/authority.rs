//! Authorities in `Host` and in targets of absolute form.

/// Whether this is `host` or `host:port` (RFC 9110, section 7.2): no user, no blank, no path.
///
/// Empty is lawful: a target without authority has an empty `Host`.
pub(crate) fn is_valid_authority(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    if text[0] == b'[' {
        let Some(end) = memchr::memchr(b']', text) else { return false };
        let address = std::str::from_utf8(&text[1..end]).ok().and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
        return address.is_some() && is_port_suffix(&text[end + 1..]);
    }
    let colon = memchr::memchr(b':', text).unwrap_or(text.len());
    colon > 0 && is_registered_name(&text[..colon]) && is_port_suffix(&text[colon..])
}

fn is_port_suffix(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((colon, digits)) => {
            // an empty port is lawful
            let number = digits.iter().try_fold(0_u32, |number, byte| {
                byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')).filter(|number| *number <= 65_535)
            });
            *colon == b':' && digits.len() <= 8 && number.is_some()
        }
    }
}

/// The bytes of a registered name, looked up once per byte of each request's host.
const REGISTERED: [bool; 256] = {
    let (mut table, others, mut byte, mut index) = ([false; 256], b"-._~!$&'()*+;=", 0, 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

/// RFC 3986, section 3.2.2, `reg-name`, without the commas and other delimiters that only attacks use.
fn is_registered_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => bytes.next().is_some_and(u8::is_ascii_hexdigit) && bytes.next().is_some_and(u8::is_ascii_hexdigit),
            _ => REGISTERED[usize::from(*byte)],
        };
        if !valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_other_texts() {
        for good in ["", "a", "example.com", "a:80", "a:", "127.0.0.1:8000", "[::1]", "[::1]:80", "a_b.c", "%41"] {
            assert!(is_valid_authority(good.as_bytes()), "{good}");
        }
        for bad in
            ["a b", "a/b", "a@b", "a:b", ":80", "a:65536", "a,b", "[::1", "[x]", "a\"", "[::1]x", "%4", "a:80:80"]
        {
            assert!(!is_valid_authority(bad.as_bytes()), "{bad}");
        }
    }
}
