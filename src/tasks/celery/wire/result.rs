//! What a task's result says of itself, read past all else: no text of it is kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::tasks::celery::event::{ExceptionClass, Verdict};

/// The gist of a result: of a map its `status`, those of its `results`, and the class of an exception.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    pub(super) class: Option<ExceptionClass>,
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Look::Result.deserialize(deserializer)
    }
}

/// What a value is looked at for; a value of another type than expected says nothing.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// A map with the keys below.
    Result,
    /// `status`: a word.
    Status,
    /// `results`: a list of results, which are not looked into for results of their own.
    Results,
    /// One of them.
    OneOfMany,
    /// `exc_type`: the name of a class.
    Class,
}

impl Look {
    fn below(self, key: &str) -> Option<Self> {
        match (self, key) {
            (Self::Result | Self::OneOfMany, "status") => Some(Self::Status),
            (Self::Result, "results") => Some(Self::Results),
            (Self::Result, "exc_type") => Some(Self::Class),
            _ => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Look {
    type Value = Answer;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Answer, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        while let Some(look) = map.next_key_seed(Key(self))? {
            match look {
                Some(look) => answer.add(map.next_value_seed(look)?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(answer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        if self == Self::Results {
            while let Some(one) = seq.next_element_seed(Self::OneOfMany)? {
                answer.add(one);
            }
        } else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(answer)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Answer, E> {
        Ok(match self {
            Self::Status => Answer { verdict: verdict(text), class: None },
            Self::Class => Answer { verdict: Verdict::Good, class: ExceptionClass::of(text) },
            Self::Result | Self::Results | Self::OneOfMany => Answer::default(),
        })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Answer, E> {
        Ok(Answer::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Answer, E> {
        Ok(Answer::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Answer, E> {
        Ok(Answer::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Answer, E> {
        Ok(Answer::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Answer, E> {
        Ok(Answer::default())
    }
}

impl Answer {
    fn add(&mut self, other: Self) {
        if other.verdict == Verdict::Bad {
            self.verdict = Verdict::Bad;
        }
        self.class = self.class.take().or(other.class);
    }
}

/// A key, as what its value is looked at for.
struct Key(Look);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<Look>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Look>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<Look>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<Look>, E> {
        Ok(self.0.below(key))
    }
}

fn verdict(word: &str) -> Verdict {
    if matches!(word, "error" | "failed") { Verdict::Bad } else { Verdict::Good }
}

/// The verdict of a result as an event has it: Python's `repr`, perhaps cut. Looks at the outermost `status` only.
///
/// It decides where there is no result backend; the backend's word comes first.
pub(super) fn text_verdict(text: &str) -> Verdict {
    let (mut depth, mut quote, mut word) = (0_u32, None, String::new());
    // the last two texts at the outermost level, and whether a colon stands between them
    let (mut key, mut has_colon) = (String::new(), false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if c == open => {
                quote = None;
                if depth == 1 && has_colon && key == "status" {
                    return verdict(&word);
                }
                (key, has_colon) = (std::mem::take(&mut word), false);
            }
            (Some(_), _) if depth == 1 => word.push(c),
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{' | '[' | '(') => depth += 1,
            (None, '}' | ']' | ')') => depth = depth.saturating_sub(1),
            (None, ':') => has_colon = depth == 1,
            (None, ',') => has_colon = false,
            _ => {}
        }
    }
    Verdict::Good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_says_by_its_status_or_those_of_its_results_that_it_failed() {
        for (json, verdict) in [
            (r#"{"status": "error", "message": "boom"}"#, Verdict::Bad),
            (r#"{"status": "failed", "errors": []}"#, Verdict::Bad),
            (r#"{"a": {"b": [1, {}]}, "status": "failed"}"#, Verdict::Bad),
            (r#"{"status": "completed", "results": [{"status": "published"}, {"status": "failed"}]}"#, Verdict::Bad),
            (r#"{"status": "success"}"#, Verdict::Good),
            (r#"{"status": 7, "results": "failed"}"#, Verdict::Good),
            (r#"{"status": {"status": "failed"}}"#, Verdict::Good),
            (r#"{"results": [{"results": [{"status": "failed"}]}]}"#, Verdict::Good),
            (r#"{"inner": {"status": "error"}}"#, Verdict::Good),
            (r#"[{"status": "error"}]"#, Verdict::Good),
            (r#""error""#, Verdict::Good),
            ("null", Verdict::Good),
            ("-1.5", Verdict::Good),
            ("true", Verdict::Good),
        ] {
            assert_eq!(serde_json::from_str::<Answer>(json).unwrap().verdict, verdict, "{json}");
        }
    }

    #[test]
    fn the_text_of_a_result_is_judged_by_its_outermost_status() {
        for (text, verdict) in [
            ("{'status': 'error', 'message': 'boom password=hunter2'}", Verdict::Bad),
            ("{'message': 'it\\'s {', 'status': 'failed'}", Verdict::Bad),
            ("{'message': \"'status': 'error'\", 'status': 'success'}", Verdict::Good),
            ("{'inner': {'status': 'error'}}", Verdict::Good),
            ("{'status': 'succ...", Verdict::Good),
            ("{'status', 'error'}", Verdict::Good),
            ("1", Verdict::Good),
            ("", Verdict::Good),
        ] {
            assert_eq!(text_verdict(text), verdict, "{text}");
        }
    }
}
