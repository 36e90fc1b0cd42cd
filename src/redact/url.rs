//! What is secret in the URL of a service, part by part. Pure.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::redact::rules::is_secret_key;

/// What of this URL may be told nowhere, as written and decoded; all of it when it is no URL.
///
/// That is the password, and the values of secret-like parameters; for `http` and `https` also a user without a password,
/// which then is a token. The rest is no secret: redacted as a whole it would take every mention of a host out of the
/// log. Nor is a password that is the name of the user, the host or the database: it would take that name out.
#[must_use]
pub fn secret_parts(text: &str) -> Vec<String> {
    let Ok(url) = Url::parse(text) else { return vec![text.to_owned()] };
    let is_web = matches!(url.scheme(), "http" | "https");
    let token = Some(url.username()).filter(|user| is_web && !user.is_empty());
    let password = url.password().filter(|password| !is_public(&url, password));
    let parameters = url.query().into_iter().flat_map(|query| query.split(['&', ';']));
    let parameters = parameters.filter_map(|pair| pair.split_once('='));
    let values = parameters.filter(|(key, _)| is_secret_key(&decoded(key))).map(|(_, value)| value);
    let user_info = if url.password().is_some() { password } else { token };
    user_info.into_iter().chain(values).flat_map(|part| [part.to_owned(), decoded(part)]).collect()
}

fn is_public(url: &Url, password: &str) -> bool {
    let mut names = [url.username()].into_iter().chain(url.host_str()).chain(url.path().split('/'));
    names.any(|name| name == password)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_what_nobody_may_know_is_secret() {
        let table: [(&str, &[&str]); 13] = [
            ("redis://:hunter2x@redis:6379/0", &["hunter2x"]),
            ("rediss://worker:hunter%402@redis", &["hunter%402", "hunter@2"]),
            ("redis://worker@redis/0", &[]),
            ("postgresql+asyncpg://factory:hunter2x@db:5432/factory?sslmode=require", &["hunter2x"]),
            ("postgresql://db/factory?user=factory&password=hunter2x", &["hunter2x"]),
            // what everybody writes into a compose file is a name before it is a password
            ("postgresql://postgres:postgres@db/factory", &[]),
            ("postgresql://app:factory@db/factory", &[]),
            ("postgresql://app:database@database/factory", &[]),
            ("sqlite:///factory.db", &[]),
            ("https://token-4711@api.example.com/", &["token-4711"]),
            ("https://api.example.com/health?api%5Fkey=hunter3&page=2;sig=hunter4", &["hunter3", "hunter4"]),
            ("https://token-4711:@api.example.com/", &["token-4711"]),
            // two hosts, a slash in a password: not read, so none of it is told
            ("redis://:pa/ss@host:1", &["redis://:pa/ss@host:1"]),
        ];
        for (url, wanted) in table {
            let mut found = secret_parts(url);
            found.dedup();
            assert_eq!(found, wanted, "{url}");
        }
    }
}
