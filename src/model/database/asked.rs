//! How long our own questions took: what we cost the database, by part, and how often it did not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::catalogue::database::{DB_CLIENT_OPERATION_DURATION, DB_SECONDS};
use crate::model::sample::Sample;
use crate::model::tally::Tally;
use crate::model::trouble::Trouble;
use crate::semconv;

/// The counts, by part and by why there was no answer. Both are words of ours, so there are few.
#[derive(Clone, Debug, Default)]
pub struct Asked(BTreeMap<(&'static str, Option<Trouble>), Tally>);

impl Asked {
    /// Counts the questions of one turn of a part.
    pub fn add(&mut self, part: &'static str, trouble: Option<Trouble>, took: Duration) {
        let tally = self.0.entry((part, trouble)).or_insert_with(|| Tally::new(DB_SECONDS));
        tally.add(took.as_secs_f64());
    }

    /// All series, of a database of this kind.
    pub(super) fn samples(&self, kind: &'static str, out: &mut Vec<Sample>) {
        for ((part, trouble), tally) in &self.0 {
            let sample = Sample::histogram(&DB_CLIENT_OPERATION_DURATION, tally.histogram())
                .with_literal(semconv::DB_SYSTEM_NAME, kind)
                .with_literal(semconv::DB_OPERATION_NAME, part);
            out.push(match trouble {
                Some(trouble) => sample.with_literal(semconv::ERROR_TYPE, trouble.word()),
                None => sample,
            });
        }
    }
}
