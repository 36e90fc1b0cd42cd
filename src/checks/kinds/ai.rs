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
use crate::trust;

/// Asks for the list of models, or what else costs nothing.
struct Ai {
    client: Client,
    url: Url,
    header: HeaderName,
    key: HeaderValue,
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
    let Some(key) = section.secret("key", "The key, as the application has it.") else {
        if !section.is_secret_set("key") {
            section.problem("key", "nothing", "a key, or a file that holds it in key_file");
        }
        return None;
    };
    let scheme = if name.eq_ignore_ascii_case("authorization") { "Bearer " } else { "" };
    let value = HeaderValue::from_str(&format!("{scheme}{}", key.expose().trim()));
    let Ok(mut value) = value else {
        section.wrong_secret("key", "one line of text");
        return None;
    };
    value.set_sensitive(true);
    let authorities = trust::read(section);
    let (url, header) = (url?, header?);
    Some(Plan::perhaps(move |means| {
        let client = http::client(&url, &means.trust, authorities.as_ref())?;
        Some(Ai { client, url: url.clone(), header: header.clone(), key: value.clone() })
    }))
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
