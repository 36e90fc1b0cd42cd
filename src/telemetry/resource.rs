//! The resource: who sends. Encoded once, and repeated in every request.
//!
//! Does not read the environment: whoever starts the sidecar hands it in.

use std::collections::BTreeMap;

use crate::redact::{Outlet, Redactor};
use crate::settings::Section;
use crate::telemetry::environment;
use crate::telemetry::limits::{ATTRIBUTE_LIMIT, NAME_LIMIT, VALUE_LIMIT};
use crate::telemetry::wire;

/// The settings below `service`: how the application is named at the vendors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// `service.name`
    pub name: String,
    /// `service.namespace`
    pub namespace: Option<String>,
    /// `service.version`
    pub version: Option<String>,
    /// `service.instance.id`
    pub instance_id: Option<String>,
    /// `deployment.environment.name`
    pub environment: Option<String>,
    /// Further attributes, as `OTEL_RESOURCE_ATTRIBUTES` writes them.
    pub attributes: BTreeMap<String, String>,
}

impl ServiceConfig {
    /// Reads the section `service`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let name = section.text("name", "content-factory", "service.name of the application's telemetry");
        let namespace = section.optional_text("namespace", "service.namespace, for names that are used twice");
        let version = section.optional_text("version", "service.version of the application");
        let instance_id = section.optional_text(
            "instance_id",
            "service.instance.id; without it namespace.pod.container in Kubernetes, else the host's name",
        );
        let environment = section.optional_text("environment", "deployment.environment.name, such as production");
        let text = section.text("attributes", "", "further resource attributes: key=value,key=value, percent-encoded");
        let attributes = environment::pairs(&text).unwrap_or_else(|| {
            section.problem("attributes", &text, "key=value pairs with commas between them");
            BTreeMap::new()
        });
        Self { name, namespace, version, instance_id, environment, attributes }
    }
}

/// The attributes of the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    attributes: BTreeMap<String, String>,
    /// The container that the sidecar runs in.
    own_container: Option<String>,
}

/// The variable in which whoever starts the sidecar tells the container that it runs in.
pub const OWN_CONTAINER_ID: &str = "OWN_CONTAINER_ID";

/// The Downward API's variables as our chart sets them, and the attributes they become.
const POD_VARIABLES: &[(&str, &str)] = &[
    ("POD_NAME", "k8s.pod.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("POD_IP", "k8s.pod.ip"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("NODE_NAME", "k8s.node.name"),
    ("CONTAINER_NAME", "k8s.container.name"),
    ("CONTAINER_ID", "container.id"),
    ("HOSTNAME", "host.name"),
];

impl Resource {
    /// Puts the resource together: settings win over what the pod's environment tells.
    ///
    /// In a pod the application has a container of its own, whose id we cannot know: there the id of ours is only the
    /// sidecar's. Elsewhere the two are taken for one place, as by the name of the host.
    #[must_use]
    pub fn new(service: &ServiceConfig, env: &BTreeMap<String, String>) -> Self {
        let mut attributes = BTreeMap::new();
        for (variable, attribute) in POD_VARIABLES {
            if let Some(value) = env.get(*variable).filter(|value| !value.is_empty()) {
                attributes.insert((*attribute).to_owned(), value.clone());
            }
        }
        let own_container = env.get(OWN_CONTAINER_ID).cloned();
        if let Some(id) = own_container.as_ref().filter(|_| !attributes.contains_key("k8s.pod.name")) {
            attributes.entry("container.id".to_owned()).or_insert_with(|| id.clone());
        }
        attributes.extend(service.attributes.clone());
        let instance = ["k8s.namespace.name", "k8s.pod.name", "k8s.container.name"]
            .map(|key| attributes.get(key).map(String::as_str));
        let instance = match instance {
            [Some(namespace), Some(pod), Some(container)] => Some(format!("{namespace}.{pod}.{container}")),
            [_, Some(pod), _] => Some(pod.to_owned()),
            _ => attributes.get("host.name").cloned(),
        };
        let settings = [
            ("service.name", Some(&service.name)),
            ("service.namespace", service.namespace.as_ref()),
            ("service.version", service.version.as_ref()),
            ("service.instance.id", service.instance_id.as_ref().or(instance.as_ref())),
            ("deployment.environment.name", service.environment.as_ref()),
        ];
        for (key, value) in settings {
            if let Some(value) = value {
                attributes.insert(key.to_owned(), value.clone());
            }
        }
        Self { attributes, own_container }
    }

    /// The same as it may leave: without secrets, and no longer than vendors take.
    #[must_use]
    pub fn cleaned(&self, redactor: &Redactor) -> Self {
        let clean = |(key, value): (String, String)| {
            let name = redactor.text(Outlet::Telemetry, key.as_bytes()).cut(NAME_LIMIT);
            let value = redactor.field(Outlet::Telemetry, &key, value.as_bytes()).cut(VALUE_LIMIT);
            (name.as_str().to_owned(), value.as_str().to_owned())
        };
        let attributes = bounded(self.attributes.clone()).into_iter().map(clean).collect();
        Self { attributes, own_container: self.own_container.clone() }
    }

    /// The sidecar's own resource: the same place under another name, so that its work is never measured as the
    /// application's.
    #[must_use]
    pub fn of_the_sidecar(&self) -> Self {
        let mut attributes = self.attributes.clone();
        let name = attributes.get("service.name").map_or("content-factory", String::as_str);
        attributes.insert("service.name".into(), format!("{name}-sidecar"));
        attributes.insert("service.version".into(), env!("CARGO_PKG_VERSION").into());
        // what is told of the application's container is not true of ours
        attributes.remove("container.id");
        attributes.remove("k8s.container.name");
        attributes.extend(self.own_container.clone().map(|id| ("container.id".to_owned(), id)));
        Self { attributes: bounded(attributes), own_container: self.own_container.clone() }
    }

    /// The attributes by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The `Resource` message.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in self.attributes() {
            wire::text_attribute(&mut out, 1, key, value.as_bytes());
        }
        out
    }
}

/// As many as vendors take; those by which records are told apart are the last to go.
fn bounded(attributes: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let (ours, others): (Vec<_>, Vec<_>) = attributes.into_iter().partition(|(key, _)| is_conventional(key));
    ours.into_iter().chain(others).take(ATTRIBUTE_LIMIT).collect()
}

fn is_conventional(key: &str) -> bool {
    ["service.", "k8s.", "container.", "host.", "deployment."].iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::resource::v1::Resource as Decoded;
    use prost::Message;

    fn service() -> ServiceConfig {
        ServiceConfig {
            name: "shop".into(),
            namespace: None,
            version: Some("1.2".into()),
            instance_id: None,
            environment: Some("production".into()),
            attributes: [("team".to_owned(), "video".to_owned())].into(),
        }
    }

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn attributes(resource: &Resource) -> BTreeMap<&str, &str> {
        resource.attributes().collect()
    }

    #[test]
    fn a_pod_names_its_instance() {
        let env = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "prod"), ("CONTAINER_NAME", "app"), ("POD_IP", "")];
        let resource = Resource::new(&service(), &environment(&env));
        let found = attributes(&resource);
        assert_eq!(found["service.instance.id"], "prod.web-1.app");
        assert_eq!(found["deployment.environment.name"], "production");
        assert_eq!(found["team"], "video");
        assert!(!found.contains_key("k8s.pod.ip"));
    }

    #[test]
    fn the_instance_is_the_container_else_the_pod_else_the_host() {
        let pod = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "prod"), ("HOSTNAME", "h")];
        for (env, expected) in [
            (&[&pod[..], &[("CONTAINER_NAME", "app")]].concat()[..], Some("prod.web-1.app")),
            (&pod[..], Some("web-1")),
            (&[("HOSTNAME", "h")], Some("h")),
            (&[], None),
        ] {
            let resource = Resource::new(&service(), &environment(env));
            assert_eq!(attributes(&resource).get("service.instance.id").copied(), expected, "{env:?}");
        }
        // the chart's older way, and OpenTelemetry's, tell the same in OTEL_RESOURCE_ATTRIBUTES
        let attributes_of = [("k8s.pod.name", "p"), ("k8s.namespace.name", "n"), ("k8s.container.name", "c")];
        let told = ServiceConfig { attributes: environment(&attributes_of), ..service() };
        assert_eq!(attributes(&Resource::new(&told, &BTreeMap::new()))["service.instance.id"], "n.p.c");
        let named = ServiceConfig { instance_id: Some("seven".into()), ..told };
        assert_eq!(attributes(&Resource::new(&named, &BTreeMap::new()))["service.instance.id"], "seven");
    }

    #[test]
    fn our_container_is_the_applications_only_where_there_is_no_pod() {
        let own = (OWN_CONTAINER_ID, "ours");
        for (env, of_application, of_sidecar) in [
            (&[own][..], Some("ours"), Some("ours")),
            (&[own, ("POD_NAME", "web-1")], None, Some("ours")),
            (&[own, ("POD_NAME", "web-1"), ("CONTAINER_ID", "theirs")], Some("theirs"), Some("ours")),
            (&[("CONTAINER_ID", "theirs")], Some("theirs"), None),
            (&[], None, None),
        ] {
            let resource = Resource::new(&service(), &environment(env));
            assert_eq!(attributes(&resource).get("container.id").copied(), of_application, "{env:?}");
            assert_eq!(attributes(&resource.of_the_sidecar()).get("container.id").copied(), of_sidecar, "{env:?}");
        }
    }

    #[test]
    fn what_leaves_is_clean_and_bounded() {
        let mut many: BTreeMap<String, String> = (0..300).map(|n| (format!("a{n}"), "x".to_owned())).collect();
        many.insert("n".repeat(300), "é".repeat(3_000));
        many.insert("api_key".to_owned(), "of-nobody".to_owned());
        many.insert("b".to_owned(), "made with hunter2-secret".to_owned());
        let service = ServiceConfig { attributes: many, version: None, ..service() };
        let redactor = Redactor::new(["hunter2-secret"]);
        let resource = Resource::new(&service, &environment(&[("POD_NAME", "web-1")])).cleaned(&redactor);
        let found = attributes(&resource);
        assert_eq!(found.len(), 128);
        assert_eq!((found["service.name"], found["k8s.pod.name"]), ("shop", "web-1"));
        let sidecar = resource.of_the_sidecar();
        assert_eq!((attributes(&sidecar).len(), attributes(&sidecar)["k8s.pod.name"]), (128, "web-1"));
        assert!(found.iter().all(|(key, value)| key.len() <= 255 && value.len() <= 4_095));
        let all = format!("{found:?}");
        assert!(!all.contains("hunter2") && !all.contains("of-nobody"), "{all}");
        let few = ServiceConfig { attributes: environment(&[("api_key", "x"), ("k", "é")]), ..service };
        let resource = Resource::new(&few, &BTreeMap::new()).cleaned(&redactor);
        assert_eq!(attributes(&resource)["api_key"], "[REDACTED:key]");
    }

    #[test]
    fn the_sidecar_has_another_name_and_prost_reads_it() {
        let resource = Resource::new(&service(), &BTreeMap::new()).of_the_sidecar();
        let decoded = Decoded::decode(resource.encoded().as_slice()).unwrap();
        assert!(
            decoded
                .attributes
                .iter()
                .any(|pair| pair.key == "service.name" && format!("{:?}", pair.value).contains("\"shop-sidecar\""))
        );
    }
}
