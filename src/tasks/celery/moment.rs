//! Points in time as Celery writes them: ISO 8601, with or without a zone. Pure.

/// Seconds since the Unix epoch; `None` when the text is no such moment. A text without zone is UTC, as Celery's are.
pub(super) fn unix_seconds(text: &str) -> Option<f64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || parts.next().is_some() || !rest.is_ascii() {
        return None;
    }
    let (time, offset) = zone(rest)?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok().filter(|number| (0.0..61.0).contains(number)));
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = parts.next().unwrap_or(Some(0.0))?;
    Some(days(year, month, day) as f64 * 86_400.0 + hours * 3_600.0 + minutes * 60.0 + seconds - offset)
}

/// A time and the seconds by which its zone is ahead of UTC.
fn zone(rest: &str) -> Option<(&str, f64)> {
    if let Some(time) = rest.strip_suffix('Z') {
        return Some((time, 0.0));
    }
    let Some(at) = rest.rfind(['+', '-']) else { return Some((rest, 0.0)) };
    let (hours, minutes) = rest[at + 1..].split_once(':')?;
    let seconds = f64::from(hours.parse::<u8>().ok()?) * 3_600.0 + f64::from(minutes.parse::<u8>().ok()?) * 60.0;
    Some((&rest[..at], if rest[at..].starts_with('-') { -seconds } else { seconds }))
}

/// Days from the Unix epoch to a date of the Gregorian calendar; a year that begins in March has its leap day last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_celery_writes_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00", 0.0),
            ("2000-03-01T00:00:00Z", 951_868_800.0),
            ("2026-11-23T17:49:14.5+00:00", 1_795_456_154.5),
            ("2026-11-23T19:49:14.5+02:00", 1_795_456_154.5),
            ("2026-11-23 12:19:14.5-05:30", 1_795_456_154.5),
        ] {
            assert_eq!(unix_seconds(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in
            ["", "tomorrow", "2026-11-23", "2026-13-01T00:00:00", "2026-01-01T25:99", "2026-1-1Tx:0", "é-T-", "-T:"]
        {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
    }
}
