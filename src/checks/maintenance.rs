//! Windows of maintenance: times of the week, in UTC, in which a service is expected not to work. Pure.

use std::ops::Range;

/// A time of each day, or of one day of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Days since Sunday; `None` for each day.
    day: Option<u64>,
    /// In minutes of the day on which it begins; it may end on the next.
    minutes: Range<u64>,
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const DAY_MINUTES: u64 = 24 * 60;
/// The Unix epoch was a Thursday.
const EPOCH_DAY: u64 = 4;

impl Window {
    /// Reads `02:00-03:30` or `Sun 23:00-01:00`; one that ends before it begins ends on the next day.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (day, times) = match text.split_once(' ') {
            Some((word, times)) => (Some(DAYS.iter().position(|day| *day == word)? as u64), times),
            None => (None, text),
        };
        let (from, to) = times.trim().split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        let to = if to <= from { to + DAY_MINUTES } else { to };
        (from < DAY_MINUTES).then_some(Self { day, minutes: from..to })
    }

    /// Whether this moment, in seconds since the Unix epoch, lies in it.
    pub(super) fn contains(&self, unix_seconds: f64) -> bool {
        let minute = unix_seconds.max(0.0) as u64 / 60;
        let (today, now) = (minute / DAY_MINUTES, minute % DAY_MINUTES);
        let begins_on = |day: u64| self.day.is_none_or(|wanted| wanted == (day + EPOCH_DAY) % 7);
        let of_yesterday = today > 0 && begins_on(today - 1) && self.minutes.contains(&(now + DAY_MINUTES));
        of_yesterday || (begins_on(today) && self.minutes.contains(&now))
    }
}

/// `02:30` as minutes of the day; `24:00` is its end.
fn minute(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 30 November 2026, 00:00 UTC.
    const MONDAY: f64 = 1_795_996_800.0;

    fn at(hours: f64) -> f64 {
        MONDAY + hours * 3_600.0
    }

    #[test]
    fn a_window_holds_its_own_times_and_no_others() {
        for (text, inside, outside) in [
            ("02:00-03:30", vec![2.0, 3.49, 26.0], vec![1.99, 3.5]),
            ("23:00-01:00", vec![23.0, 0.5, 24.9], vec![22.9, 1.0]),
            ("Mon 02:00-03:00", vec![2.5, 170.5], vec![26.5, 1.0]),
            ("Sun 23:00-01:00", vec![0.5, 167.0], vec![23.5, 24.5]),
            ("00:00-24:00", vec![0.0, 23.99], vec![]),
        ] {
            let window = Window::parse(text).expect(text);
            assert!(inside.iter().all(|hours| window.contains(at(*hours))), "{text}");
            assert!(!outside.iter().any(|hours| window.contains(at(*hours))), "{text}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in ["", "02:00", "2-3", "25:00-26:00", "02:60-03:00", "Monday 02:00-03:00", "24:00-01:00", "x-y"] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }
}
