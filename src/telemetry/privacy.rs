//! What may identify people, and how much of it leaves: the settings below `telemetry.privacy`, and the daily key.
//!
//! Addresses are hashed by HMAC-SHA256, cut to 8 bytes. A keyed hash, because all of IPv4 is tried against a plain one in
//! seconds; of a cryptographic function, because whoever knows one address and its hash must not come nearer to the others
//! (SipHash promises less). By `ring`, which TLS brings in any case. The key is of this process alone, is random, is replaced
//! at midnight (UTC) and is never written: hashes of two days or two processes cannot be linked, nor undone later.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::model::reload::Retune;
use crate::model::request::RequestRecord;
use crate::redact::{Clean, Outlet, Redactor};
use crate::semconv;
use crate::settings::Section;
use crate::telemetry::wire;

/// In `Span`.
const ATTRIBUTES: u32 = 9;
const DAY_NANOS: u64 = 86_400 * 1_000_000_000;
/// Of the hash, in bytes: enough to tell the clients of a day apart.
const HASH_BYTES: usize = 8;

/// The settings below `telemetry.privacy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivacyConfig {
    /// How much of a client's address leaves.
    pub address: AddressForm,
    /// Whether queries leave, redacted.
    pub query: bool,
    /// Whether user agents leave, redacted.
    pub user_agent: bool,
}

/// How much of a client's address leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressForm {
    /// Nothing.
    None,
    /// A hash with the key of the day.
    Hash,
    /// Its network: the first 24 bits of version 4, 48 of version 6.
    Truncate,
    /// All of it, and the peer's.
    Full,
}

impl PrivacyConfig {
    /// Reads the section `telemetry.privacy`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let forms = [
            ("none", AddressForm::None),
            ("hash", AddressForm::Hash),
            ("truncate", AddressForm::Truncate),
            ("full", AddressForm::Full),
        ];
        let about = "how much of a client's address leaves with spans: none, hash (with a random key of the process and the day), truncate (/24, /48) or full";
        let address = section.choice("address", AddressForm::None, &forms, about);
        let about = "whether the queries of URLs leave with spans, the values of secret-like parameters replaced";
        let query = section.flag("query", false, about);
        let user_agent = section.flag("user_agent", false, "whether the User-Agent header leaves with spans");
        Self { address, query, user_agent }
    }
}

/// The settings in force, for all who write. A reload puts others in their place; to look costs one load.
#[derive(Clone, Debug)]
pub struct Privacy(Arc<AtomicU8>);

impl Privacy {
    /// Begins with these.
    #[must_use]
    pub fn new(config: PrivacyConfig) -> Self {
        Self(Arc::new(AtomicU8::new(packed(config))))
    }

    /// Those of now.
    #[must_use]
    pub fn in_force(&self) -> PrivacyConfig {
        let packed = self.0.load(Ordering::Relaxed);
        let address = FORMS[usize::from(packed >> 2) % FORMS.len()];
        PrivacyConfig { address, query: packed & 1 > 0, user_agent: packed & 2 > 0 }
    }
}

impl Retune for Privacy {
    type Config = PrivacyConfig;
    const LIVE: &'static [&'static str] = &["telemetry.privacy."];

    fn retune(&self, config: &PrivacyConfig) -> Result<(), String> {
        self.0.store(packed(*config), Ordering::Relaxed);
        Ok(())
    }
}

const FORMS: [AddressForm; 4] = [AddressForm::None, AddressForm::Hash, AddressForm::Truncate, AddressForm::Full];

fn packed(config: PrivacyConfig) -> u8 {
    (config.address as u8) << 2 | u8::from(config.user_agent) << 1 | u8::from(config.query)
}

/// The key of the day, the same for all workers.
#[derive(Debug)]
pub(crate) struct DailyKey(Mutex<Day>);

/// A day since the Unix epoch, and its key; `None` when the system gave no random bytes: then no hash leaves.
#[derive(Clone, Debug, Default)]
struct Day {
    number: u64,
    key: Option<hmac::Key>,
}

impl Day {
    /// Whether it is this one, or one that a clock a moment behind takes for the next.
    fn covers(&self, number: u64) -> bool {
        self.key.is_some() && (self.number == number || self.number == number + 1)
    }
}

impl DailyKey {
    fn of(&self, number: u64) -> Day {
        let mut day = self.0.lock().expect("no code panics while it holds the key");
        if !day.covers(number) {
            let mut bytes = [0; 32];
            let filled = SystemRandom::new().fill(&mut bytes);
            *day = Day { number, key: filled.ok().map(|()| hmac::Key::new(hmac::HMAC_SHA256, &bytes)) };
        }
        day.clone()
    }
}

/// Writes what may identify people, as far as the settings ask for it. One for each worker.
#[derive(Clone, Debug)]
pub(crate) struct Personal {
    settings: Privacy,
    keys: Arc<DailyKey>,
    /// So that the lock is taken once a day.
    today: RefCell<Day>,
}

impl Personal {
    /// By these settings, as they are and as they will be.
    pub(crate) fn new(settings: Privacy) -> Self {
        Self { settings, keys: Arc::new(DailyKey(Mutex::default())), today: RefCell::default() }
    }

    /// The query as it may leave, without its `?`; `None` without one.
    pub(crate) fn query<'r>(&self, record: &RequestRecord<'r>, redactor: &Redactor) -> Option<Clean<'r>> {
        if !self.settings.in_force().query {
            return None;
        }
        let query = record.target.get(record.path().len() + 1..).filter(|query| !query.is_empty());
        query.map(|query| redactor.query(Outlet::Telemetry, query))
    }

    /// The user agent as it may leave.
    pub(crate) fn user_agent<'r>(&self, record: &RequestRecord<'r>, redactor: &Redactor) -> Option<Clean<'r>> {
        let user_agent = record.user_agent.filter(|_| self.settings.in_force().user_agent);
        user_agent.map(|user_agent| redactor.text(Outlet::Telemetry, user_agent))
    }

    /// Appends the attributes of the client's address.
    pub(crate) fn append_addresses(&self, out: &mut Vec<u8>, record: &RequestRecord<'_>) {
        let client = &record.client;
        match self.settings.in_force().address {
            AddressForm::None => {}
            AddressForm::Hash => {
                let nanos = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX);
                let day = record.started_unix_nanos.saturating_add(nanos) / DAY_NANOS;
                if let Some(hash) = self.hash(client.address, day) {
                    wire::text_attribute(out, ATTRIBUTES, semconv::CONTENT_FACTORY_CLIENT_HASH, &hash);
                }
            }
            AddressForm::Truncate => {
                address(out, semconv::CLIENT_ADDRESS, network(client.address));
                address(out, semconv::NETWORK_PEER_ADDRESS, network(client.peer.ip()));
            }
            AddressForm::Full => {
                address(out, semconv::CLIENT_ADDRESS, client.address.to_canonical());
                address(out, semconv::NETWORK_PEER_ADDRESS, client.peer.ip().to_canonical());
                wire::int_attribute(out, ATTRIBUTES, semconv::NETWORK_PEER_PORT, client.peer.port().into());
            }
        }
    }

    fn hash(&self, address: IpAddr, day: u64) -> Option<[u8; 2 * HASH_BYTES]> {
        let mut today = self.today.borrow_mut();
        if !today.covers(day) {
            *today = self.keys.of(day);
        }
        let key = today.key.as_ref()?;
        let tag = match address.to_canonical() {
            IpAddr::V4(address) => hmac::sign(key, &address.octets()),
            // a client has a network of 64 bits, and changes the rest as it likes
            IpAddr::V6(address) => hmac::sign(key, &address.octets()[..8]),
        };
        let mut hex = [0; 2 * HASH_BYTES];
        for (byte, pair) in tag.as_ref().iter().zip(hex.chunks_exact_mut(2)) {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            (pair[0], pair[1]) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
        }
        Some(hex)
    }
}

/// The network that an address belongs to, as its first address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (!0 << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
    }
}

fn address(out: &mut Vec<u8>, key: &str, address: IpAddr) {
    wire::text_attribute(out, ATTRIBUTES, key, address.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: PrivacyConfig = PrivacyConfig { address: AddressForm::Hash, query: false, user_agent: false };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_cut_to_its_network() {
        for (address, expected) in [
            ("203.0.113.77", "203.0.113.0"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::1", "::"),
        ] {
            assert_eq!(network(ip(address)), ip(expected), "{address}");
        }
    }

    #[test]
    fn workers_of_one_process_hash_alike_and_other_processes_do_not() {
        let one = Personal::new(Privacy::new(HASHED));
        let (twin, other) = (one.clone(), Personal::new(Privacy::new(HASHED)));
        let hash = one.hash(ip("203.0.113.77"), 7).unwrap();
        assert_eq!(twin.hash(ip("::ffff:203.0.113.77"), 7).unwrap(), hash);
        assert_ne!(one.hash(ip("203.0.113.78"), 7).unwrap(), hash);
        assert_ne!(other.hash(ip("203.0.113.77"), 7).unwrap(), hash);
        assert!(hash.iter().all(u8::is_ascii_hexdigit));
        let networks =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|text| one.hash(ip(text), 7).unwrap());
        assert_eq!(networks[0], networks[1]);
        assert_ne!(networks[0], networks[2]);
    }

    #[test]
    fn each_day_has_a_key_and_a_clock_that_is_set_back_gets_none_of_yesterday() {
        let one = Personal::new(Privacy::new(HASHED));
        let twin = one.clone();
        let hash = |worker: &Personal, day| worker.hash(ip("203.0.113.77"), day).unwrap();
        let first = hash(&one, 7);
        let second = hash(&one, 8);
        assert_ne!(first, second);
        // a worker whose last request ended a moment before midnight, and one that was told of an earlier day
        assert_eq!(hash(&twin, 7), second);
        assert_eq!(hash(&twin, 8), second);
        assert_eq!(hash(&one, 7), second);
        assert_ne!(hash(&one, 2), second);
        assert_ne!(hash(&one, 2), first);
    }

    #[test]
    fn the_key_is_printed_nowhere() {
        let one = Personal::new(Privacy::new(HASHED));
        let _ = one.hash(ip("203.0.113.77"), 7);
        assert!(format!("{one:?}").contains("SHA256"), "{one:?}");
        assert!(!format!("{one:?}").contains('['), "no list of bytes: {one:?}");
    }

    #[test]
    fn other_settings_are_in_force_for_all_who_look() {
        let none = PrivacyConfig { address: AddressForm::None, query: false, user_agent: false };
        let one = Privacy::new(none);
        let other = one.clone();
        for address in FORMS {
            for (query, user_agent) in [(false, false), (true, false), (false, true), (true, true)] {
                let asked = PrivacyConfig { address, query, user_agent };
                one.retune(&asked).unwrap();
                assert_eq!(other.in_force(), asked);
            }
        }
    }
}
