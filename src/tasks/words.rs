//! What a client of the tasks may write: names, ids and classes of errors, each bounded and of harmless characters.
//!
//! Pure. All of it is cleaned afterwards: a name may hold a secret whatever its characters.

/// In characters, of each of them.
const LONGEST: usize = 100;

/// Whether it is a name of a task: of any script, without control characters.
pub(super) fn is_name(text: &str) -> bool {
    is_short(text) && !text.chars().any(char::is_control)
}

/// Whether it is an id as Celery has them: a UUID unless the caller has chosen another.
pub(super) fn is_task_id(text: &str) -> bool {
    is_short(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(c))
}

/// Whether it is the name of a class, with or without its module: never the text of an exception.
pub(super) fn is_class(text: &str) -> bool {
    let is_identifier = |part: &str| {
        part.chars().all(|c| c.is_alphanumeric() || c == '_') && part.starts_with(|c: char| !c.is_numeric())
    };
    is_short(text) && text.split('.').all(is_identifier)
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_an_identifier_and_never_a_sentence() {
        for text in ["ValueError", "httpx.ConnectError", "_Private", "Größenfehler", &"E".repeat(100)] {
            assert!(is_class(text), "{text}");
        }
        for text in ["", ".", "a.", "1st", "ValueError('x')", "no such file", "a-b", "x:y", &"E".repeat(101)] {
            assert!(!is_class(text), "{text}");
        }
    }

    #[test]
    fn a_name_is_short_and_has_no_control_characters() {
        for text in ["video_generation", "content_factory.tasks.render", "Video für alle", &"n".repeat(100)] {
            assert!(is_name(text), "{text}");
        }
        for text in ["", "a\nb", "a\0", "\u{85}", &"n".repeat(101)] {
            assert!(!is_name(text), "{text:?}");
        }
        assert!(is_task_id("59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f1f") && is_task_id("order:7/retry_1"));
        assert!(!is_task_id("a b") && !is_task_id("<id>") && !is_task_id(""));
    }
}
