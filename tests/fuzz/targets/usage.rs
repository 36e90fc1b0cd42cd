//! What an AI service answers, while it streams by: as one document, and as the data of events.

use content_factory_sidecar::egress::events::Answer;
use content_factory_sidecar::egress::scan::Found;
use serde_json::Value;

use crate::targets::Fate;

/// It does not matter where the bytes are cut, and what a reader of whole documents finds is found.
pub(crate) fn check(data: &[u8]) -> Fate {
    for make in [Answer::default, Answer::of_events] {
        let whole = read(make(), data, data.len());
        for size in [1, 7] {
            assert_eq!(read(make(), data, size), whole, "in pieces of {size}: {}", data.escape_ascii());
        }
        assert!(whole.model.is_none_or(|model| model.len() <= 100), "{}", data.escape_ascii());
    }
    // a name that is written by its code points is none that is looked for
    let Some(document) = serde_json::from_slice::<Value>(data).ok().filter(|_| !data.contains(&b'\\')) else {
        return Fate::Refused;
    };
    let found = read(Answer::default(), data, data.len());
    let is_wrapped = ["response", "message"].iter().any(|name| document.get(name).is_some());
    if let Some(model) = document["model"].as_str().filter(|model| model.len() <= 100 && !is_wrapped) {
        assert_eq!(found.model.as_deref(), Some(model), "{}", data.escape_ascii());
    }
    let usage = &document["usage"];
    for (names, found) in
        [(["prompt_tokens", "input_tokens"], found.input), (["completion_tokens", "output_tokens"], found.output)]
    {
        let told: Vec<&Value> = names.iter().filter_map(|name| usage.get(name)).collect();
        if let [told] = told[..]
            && told.as_u64().is_some()
            && !is_wrapped
        {
            assert_eq!(found, told.as_u64(), "{}", data.escape_ascii());
        }
    }
    Fate::Accepted
}

fn read(mut answer: Answer, data: &[u8], size: usize) -> Found {
    data.chunks(size.max(1)).for_each(|piece| answer.feed(piece));
    answer.end().clone()
}
