//! The secrets of an environment: told by the names of its variables, and by the URLs among their values. Pure.
//!
//! A pod's variables are often those of the application, too; what is a secret there must leave by none of our doors.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use crate::redact::url::secret_parts;

/// How the name of a variable ends whose value is a secret.
const ENDINGS: &[&str] = &[
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASS",
    "CREDENTIAL",
    "CREDENTIALS",
    "SALT",
    "ACCESS_KEY_ID",
];
/// Names that end like this and are meant for everybody, or hold a path.
const HARMLESS: &[&str] = &["PUBLIC_KEY", "PRIMARY_KEY", "CLIENT_KEY", "PARTITION_KEY", "SORT_KEY", "SSH_KEY"];
/// How the name of a variable ends whose value is an address that may hold a secret.
const ADDRESSES: &[&str] = &["DSN", "URL", "URI"];
/// Values that switch something, whatever their name.
const SWITCHES: &[&str] = &["enabled", "disabled", "default", "required", "optional"];

/// In bytes.
const LONGEST_WORD: usize = 20;

/// What of the environment may be told nowhere.
///
/// A word that a variable with an ordinary name has, too, is no secret, such as the password `postgres` of the user
/// `postgres`: redacted, it would take that word out of every text.
#[must_use]
pub fn environment_secrets(environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut words: BTreeSet<&str> = SWITCHES.iter().copied().collect();
    let mut secrets = Vec::new();
    for (name, value) in environment {
        let (name, value) = (name.to_ascii_uppercase(), value.trim());
        match sort_of(&name, value) {
            Sort::Secret => secrets.push(value.to_owned()),
            Sort::Address => secrets.extend(secret_parts(value)),
            Sort::Word if is_word(value) => drop(words.insert(value)),
            Sort::Word => {}
        }
    }
    secrets.retain(|secret| !words.contains(secret.as_str()));
    secrets
}

enum Sort {
    Secret,
    Address,
    Word,
}

fn sort_of(name: &str, value: &str) -> Sort {
    let ends = |endings: &[&str]| endings.iter().any(|ending| is_last_word(name, ending));
    let url = Url::parse(value).ok().filter(Url::has_authority);
    match url {
        // a URL that does not parse is told nowhere, if its name says that it is one
        None if ends(ADDRESSES) && value.contains("://") => Sort::Address,
        Some(url) if url.password().is_some() || !url.username().is_empty() || url.query().is_some() => Sort::Address,
        _ if ends(ENDINGS) && !ends(HARMLESS) && !is_path(value) => Sort::Secret,
        _ => Sort::Word,
    }
}

/// Whether a name ends with this, at the border of a word: `PWD` and `MONKEY` end with no secret.
fn is_last_word(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-', '.']))
}

/// Whether a value may be a name: a key with a second, ordinary name stays a secret.
fn is_word(value: &str) -> bool {
    value.len() <= LONGEST_WORD && value.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'))
}

/// Whether a value names a file: several names behind a slash, as Kubernetes and Docker mount secrets.
fn is_path(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '/' | '.' | '-' | '_');
    value.starts_with('/') && value.len() < 256 && value.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_variables_tell_what_is_secret() {
        let table: [(&str, &str, &[&str]); 22] = [
            ("OPENAI_API_KEY", "sk-4711", &["sk-4711"]),
            ("jwt_secret", "hunter2", &["hunter2"]),
            ("SECRET_KEY", "hunter2", &["hunter2"]),
            ("PASSWORD", "hunter2", &["hunter2"]),
            ("GITHUB_TOKEN", " hunter2\n", &["hunter2"]),
            ("SMTP_PASS", "hunter2", &["hunter2"]),
            ("AWS_ACCESS_KEY_ID", "AKIA4711", &["AKIA4711"]),
            ("DATABASE_URL", "postgresql://shop:hunter2@db/shop", &["hunter2", "hunter2"]),
            ("BROKER", "amqp://shop:hunter%2F2@mq//", &["hunter%2F2", "hunter/2"]),
            ("CACHE_URL", "redis://:pa/ss@host:1", &["redis://:pa/ss@host:1"]),
            ("SENTRY_DSN", "https://4711abc@o1.ingest.example/1", &["4711abc", "4711abc"]),
            ("WEBHOOK", "https://h/x?api_key=hunter2&page=1", &["hunter2", "hunter2"]),
            // a base64 text may begin with a slash
            ("HMAC_KEY", "/A1b2C3+d4==", &["/A1b2C3+d4=="]),
            ("TLS_PRIVATE_KEY", "/run/secrets/tls.key", &[]),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "client.pem", &[]),
            ("STRIPE_PUBLIC_KEY", "pk_4711", &[]),
            ("PWD", "/app", &[]),
            ("MONKEY", "banana", &[]),
            ("SIDECAR_AI_SERVICES__KEYS", "OPENAI_API_KEY", &[]),
            ("SECRET_KEY_FILE", "/run/secrets/key", &[]),
            ("USE_TOKEN", "enabled", &[]),
            ("UPSTREAM_URL", "http://127.0.0.1:8000/path", &[]),
        ];
        for (name, value, expected) in table {
            let environment = [(name.to_owned(), value.to_owned())].into();
            assert_eq!(environment_secrets(&environment), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_word_that_stands_in_an_ordinary_variable_is_no_secret() {
        let environment = [("POSTGRES_PASSWORD", "postgres"), ("POSTGRES_USER", "postgres"), ("X_TOKEN", "hunter2")];
        // the same key under a name that tells nothing
        let environment = [&environment[..], &[("GH_PAT", "hunter2")]].concat();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(environment_secrets(&environment), ["hunter2"]);
    }
}
