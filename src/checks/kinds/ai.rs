//! The check of an AI service: a cheap request with the application's own key, which tells a key that was revoked, one that may
//! not, a quota that is used up and an outage apart. That a key is there proves none of this.

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Url};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::kinds::http;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::trouble::Trouble;
use crate::redact::Secret;
use crate::settings::Section;
use crate::trust::{self, Trust};

/// Asks for the list of models, or what else costs nothing.
pub(super) struct Ai {
    client: Client,
    url: Url,
    header: HeaderName,
    key: HeaderValue,
}

/// What is asked for, and with what.
pub(super) struct Asked {
    url: Url,
    header: HeaderName,
    key: HeaderValue,
    authorities: Option<Secret<String>>,
}

pub(super) const KIND: Kind = Kind {
    word: "ai",
    about: "an AI service and its key: a cheap request with it tells `key_revoked` (401), `forbidden` (403), `quota` (429) and an outage apart",
    pace: Pace::seconds(300, 15),
    read,
};

const MODELS: &str = "https://api.openai.com/v1/models";

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let section = &mut *reading.section;
    let Some(asked) = read_call(section, "The key, as the application has it.")? else {
        section.problem("key", "nothing", "a key, or a file that holds it in key_file");
        return None;
    };
    Some(Plan::perhaps(move |means| asked.make(&means.trust)))
}

/// Reads a question that costs nothing: `Some(None)` without a key, `None` after a mistake.
pub(super) fn read_call(section: &mut Section<'_>, about_key: &'static str) -> Option<Option<Asked>> {
    let about = "A page that costs nothing and wants the key; without it https://api.openai.com/v1/models.";
    let url = match http::read_url(section, about) {
        Some(url) => Some(url.expose().clone()),
        None if section.is_secret_set("url") => None,
        None => Url::parse(MODELS).ok(),
    };
    let about = "The header that carries the key: authorization (as Bearer), or the service's own, such as x-api-key.";
    let name = section.text("header", "authorization", about);
    let header: Option<HeaderName> = name.parse().ok();
    if header.is_none() {
        section.problem("header", &name, "the name of a header such as x-api-key");
    }
    let authorities = trust::read(section);
    let Some(key) = section.secret("key", about_key) else {
        return (!section.is_secret_set("key") && url.is_some() && header.is_some()).then_some(None);
    };
    let scheme = if name.eq_ignore_ascii_case("authorization") { "Bearer " } else { "" };
    let value = HeaderValue::from_str(&format!("{scheme}{}", key.expose().trim()));
    let Ok(mut key) = value else {
        section.wrong_secret("key", "one line of text");
        return None;
    };
    key.set_sensitive(true);
    Some(Some(Asked { url: url?, header: header?, key, authorities }))
}

impl Asked {
    /// Whoever asks it; `None` when nobody is to be trusted.
    pub(super) fn make(&self, trust: &Trust) -> Option<Ai> {
        let client = http::client(&self.url, trust, self.authorities.as_ref())?;
        Some(Ai { client, url: self.url.clone(), header: self.header.clone(), key: self.key.clone() })
    }
}

#[async_trait]
impl Check for Ai {
    async fn run(&self) -> Result<Finding, Failure> {
        let request = self.client.get(self.url.clone()).header(&self.header, &self.key);
        let status = request.send().await.map_err(http::failure)?.status();
        match status.as_u16() {
            _ if status.is_success() => Ok(Finding::Works),
            401 => Err(Failure::plain(Class::Condition("key_revoked"))),
            403 => Err(Failure::plain(Class::Condition("forbidden"))),
            429 => Err(Failure::plain(Trouble::Quota)),
            code => Err(Failure::plain(Class::Status(code))),
        }
    }
}
