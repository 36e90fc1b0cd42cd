//! Numbers of the business, as the application's tables tell them.

use crate::redact::Clean;

/// What was read of the newest rows. A part that cannot be read is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Business {
    /// The age of the newest product, in seconds, when it was read.
    pub newest_product_seconds: Option<f64>,
    /// The age of the newest finished video.
    pub newest_video_seconds: Option<f64>,
    /// How publishing went lately.
    pub publishes: Option<Publishes>,
}

/// The newest rows of publishes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publishes {
    /// Rows by their status as the application writes it, most first.
    pub by_status: Vec<(Clean<'static>, u64)>,
    /// Those that went well.
    pub published: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those of which it is not known yet.
    pub others: u64,
}

impl Publishes {
    /// Share that went well, of those of which it is known; `None` without any.
    #[must_use]
    pub fn success_ratio(&self) -> Option<f64> {
        let known = self.published.saturating_add(self.failed);
        (known > 0).then(|| self.published as f64 / known as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_success_rate_is_of_what_is_known() {
        for (published, failed, others, expected) in
            [(0, 0, 9, None), (3, 1, 100, Some(0.75)), (0, 2, 0, Some(0.0)), (5, 0, 0, Some(1.0))]
        {
            let publishes = Publishes { by_status: Vec::new(), published, failed, others };
            assert_eq!(publishes.success_ratio(), expected);
        }
    }
}
