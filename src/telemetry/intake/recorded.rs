//! Headers that an SDK was told to record: whose they are, and which of them hold a credential. Pure.
//!
//! By the names that products of 2026 document. A header that is not in a table passes like any text: cleaned, and no further
//! asked.

use crate::redact::is_secret_key;

/// Before the name of a header, of a request and of an answer: some servers send back whom they take the client for. gRPC's
/// metadata are headers too.
const BEFORE: &[&str] = &[
    "http.request.header.",
    "http.response.header.",
    "rpc.request.metadata.",
    "rpc.response.metadata.",
    "rpc.grpc.request.metadata.",
    "rpc.grpc.response.metadata.",
];

/// Headers in which proxies, load balancers and content networks hand the client's address on; in order.
const ADDRESSES: &[&str] = &[
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "cloudfront-viewer-address",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "incap-client-ip",
    "proxy-client-ip",
    "remote-addr",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-remote-addr",
    "x-appengine-user-ip",
    "x-arr-clientip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-client-ip",
    "x-forwarded-for",
    "x-nf-client-connection-ip",
    "x-original-forwarded-for",
    "x-original-remote-addr",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-sucuri-clientip",
    "x-vercel-forwarded-for",
    "x-vercel-proxied-for",
];

/// Browsers tell in parts what the user agent tells (Client Hints).
const AGENT_HINTS: &str = "sec-ch-ua";

/// Headers with a URL, and so with its query.
const URLS: &[&str] = &["content-location", "location", "referer"];

/// How headers end whose value opens a door, where `is_secret_key` looks for whole words; without dashes.
const CREDENTIALS: &[&str] = &["auth", "key"];

/// Headers that end like those and open none; without dashes.
const HARMLESS: &[&str] = &["idempotencykey", "secwebsocketkey", "surrogatekey", "cachekey"];

/// What of a client a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Nobody,
    Address,
    Agent,
    Query,
}

/// The name of the header that an attribute holds, lower case and with dashes: Python's instrumentations write `_`.
pub(super) fn header(key: &str) -> Option<String> {
    let name = BEFORE.iter().find_map(|before| key.strip_prefix(before))?;
    Some(name.to_ascii_lowercase().replace('_', "-"))
}

/// What a header of this name, as `header` gives it, tells of the client.
pub(super) fn tells(header: &str) -> About {
    if ADDRESSES.contains(&header) {
        About::Address
    } else if header == "user-agent" || header.starts_with(AGENT_HINTS) {
        About::Agent
    } else if URLS.contains(&header) {
        About::Query
    } else {
        About::Nobody
    }
}

/// Whether an attribute holds a header whose value is a credential.
pub(super) fn is_credential(key: &str) -> bool {
    let Some(header) = header(key) else { return false };
    let plain = header.replace('-', "");
    let ends = |with: &[&str]| with.iter().any(|end| plain.ends_with(end));
    is_secret_key(&header) || ends(CREDENTIALS) && !ends(HARMLESS)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Headers with the client's address, as products of 2026 name them.
    pub(crate) const DOCUMENTED: &[&str] = &[
        "Forwarded",
        "X-Forwarded-For",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "CF-Connecting-IPv6",
        "Fastly-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "X-Envoy-External-Address",
        "X-Original-Forwarded-For",
        "X-Azure-ClientIP",
        "X-Azure-SocketIP",
        "X-Appengine-User-IP",
        "Fly-Client-IP",
        "DO-Connecting-IP",
        "X-ProxyUser-IP",
        "WL-Proxy-Client-IP",
        "Proxy-Client-IP",
        "Client-IP",
        "CloudFront-Viewer-Address",
        "X-Nf-Client-Connection-IP",
        "X-Vercel-Forwarded-For",
    ];

    /// An attribute of a header as each SDK spells it, of a request, of an answer and of gRPC.
    fn spelled(name: &str) -> Vec<String> {
        let (lower, python) = (name.to_lowercase(), name.to_lowercase().replace('-', "_"));
        BEFORE.iter().flat_map(|before| [name, &lower, &python].map(|name| format!("{before}{name}"))).collect()
    }

    fn told(name: &str) -> Vec<About> {
        let mut told: Vec<_> = spelled(name).iter().map(|key| tells(&header(key).unwrap())).collect();
        told.dedup();
        told
    }

    #[test]
    fn each_header_that_a_known_product_puts_the_clients_address_in_is_known_in_every_spelling() {
        for name in DOCUMENTED {
            assert_eq!(told(name), [About::Address], "{name}");
        }
        assert!(ADDRESSES.is_sorted());
        for name in ADDRESSES {
            assert_eq!(told(name), [About::Address], "{name} is spelled as it is compared");
        }
    }

    #[test]
    fn a_header_tells_of_the_agent_of_a_query_or_of_nobody() {
        for name in ["User-Agent", "Sec-CH-UA", "Sec-CH-UA-Platform-Version"] {
            assert_eq!(told(name), [About::Agent], "{name}");
        }
        for name in ["Referer", "Location", "Content-Location"] {
            assert_eq!(told(name), [About::Query], "{name}");
        }
        for name in ["Content-Type", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Retry-After"] {
            assert_eq!(told(name), [About::Nobody], "{name}");
        }
        assert_eq!(header("http.route"), None);
        assert_eq!(header("client.address"), None);
    }

    #[test]
    fn each_header_that_opens_a_door_is_a_credential_in_every_spelling() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "X-Api-Key",
            "Api-Key",
            "DD-API-KEY",
            "X-Goog-Api-Key",
            "Ocp-Apim-Subscription-Key",
            "X-Functions-Key",
            "X-Auth-Key",
            "X-Auth-Token",
            "X-Auth",
            "X-Sentry-Auth",
            "X-Csrf-Token",
            "X-Amz-Security-Token",
            "X-Vault-Token",
            "X-Shopify-Access-Token",
            "X-Hub-Signature-256",
            "Stripe-Signature",
            "Cf-Access-Jwt-Assertion",
            "Session-Id",
        ] {
            for key in spelled(name) {
                assert!(is_credential(&key), "{key}");
            }
        }
        for name in ["Idempotency-Key", "Sec-WebSocket-Key", "Surrogate-Key", "Content-Type", "Keep-Alive", "Author"] {
            for key in spelled(name) {
                assert!(!is_credential(&key), "{key}");
            }
        }
        assert!(!is_credential("primary.key"), "no header");
    }
}
