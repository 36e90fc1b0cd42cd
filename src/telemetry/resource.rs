//! The resource: who sends. Encoded once, and repeated in every request.
//!
//! Does not read the environment: whoever starts the sidecar hands it in.

use std::collections::BTreeMap;

use crate::settings::Section;
use crate::telemetry::environment;
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
}

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
    #[must_use]
    pub fn new(service: &ServiceConfig, env: &BTreeMap<String, String>) -> Self {
        let mut attributes = BTreeMap::new();
        for (variable, attribute) in POD_VARIABLES {
            if let Some(value) = env.get(*variable).filter(|value| !value.is_empty()) {
                attributes.insert((*attribute).to_owned(), value.clone());
            }
        }
        let instance = ["k8s.namespace.name", "k8s.pod.name", "k8s.container.name"]
            .map(|key| attributes.get(key).map(String::as_str));
        let instance = match instance {
            [Some(namespace), Some(pod), Some(container)] => Some(format!("{namespace}.{pod}.{container}")),
            [_, Some(pod), _] => Some(pod.to_owned()),
            _ => attributes.get("host.name").cloned(),
        };
        attributes.extend(service.attributes.clone());
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
        Self { attributes }
    }

    /// The sidecar's own resource: the same place under another name, so that its work is never measured as the
    /// application's.
    #[must_use]
    pub fn of_the_sidecar(&self) -> Self {
        let mut attributes = self.attributes.clone();
        let name = attributes.get("service.name").map_or("content-factory", String::as_str);
        attributes.insert("service.name".into(), format!("{name}-sidecar"));
        attributes.insert("service.version".into(), env!("CARGO_PKG_VERSION").into());
        Self { attributes }
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

    #[test]
    fn a_pod_names_its_instance() {
        let env = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "prod"), ("CONTAINER_NAME", "app"), ("POD_IP", "")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let resource = Resource::new(&service(), &env);
        let found: BTreeMap<_, _> = resource.attributes().collect();
        assert_eq!(found["service.instance.id"], "prod.web-1.app");
        assert_eq!(found["deployment.environment.name"], "production");
        assert_eq!(found["team"], "video");
        assert!(!found.contains_key("k8s.pod.ip"));
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
