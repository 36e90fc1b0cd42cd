//! Who sends: what the pod's variables, the settings and the kernel tell, as it leaves.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::raw_receiver::RawReceiver;
use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_receiver::eventually;

const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";
const APPLICATIONS_CONTAINER: &str = "cde7c2bab394630a42d73dc610b9c57415dced996106665d427f6d0566594411";

fn attributes(resource: &Resource) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    let pairs = resource.attributes.iter().cloned();
    pairs.map(|pair| (pair.key, text(pair.value.and_then(|any| any.value)))).collect()
}

/// Starts the binary with these variables, and gives the resources of the application and of the sidecar itself.
async fn resources(environment: &[(&str, &str)]) -> [BTreeMap<String, String>; 2] {
    let receiver = RawReceiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let otlp = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let sidecar = Sidecar::start(echo_application().await, &[], &[environment, &otlp[..]].concat()).await;
    assert_eq!(get(sidecar.proxy, "/x").await.expect("an answer").0, 200);
    eventually("spans and logs", PATIENCE, || !receiver.resource_spans().is_empty() && !receiver.logs().is_empty())
        .await;
    let of_spans = receiver.resource_spans().remove(0);
    assert_eq!(of_spans.schema_url, SCHEMA);
    assert!(of_spans.scope_spans.iter().all(|scope| scope.schema_url == SCHEMA));
    let of_logs = receiver.logs().remove(0).resource_logs.remove(0);
    assert_eq!(of_logs.schema_url, SCHEMA);
    [of_spans.resource, of_logs.resource].map(|resource| attributes(&resource.expect("a resource")))
}

#[tokio::test]
async fn in_a_pod_the_resource_tells_pod_namespace_node_and_the_applications_container() {
    let [application, sidecar] = resources(&[
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=loses,service.namespace=media,service.version=1%2C2,deployment.environment.name=production,team=video%20%26%20sound"),
        ("POD_NAME", "shop-web-7d4b9-x2x"),
        ("POD_UID", "9b2e4c1a-6f0d-4c3b-9a57-1f2e3d4c5b6a"),
        ("POD_IP", "10.1.2.3"),
        ("POD_NAMESPACE", "media-prod"),
        ("NODE_NAME", "node-7"),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_ID", APPLICATIONS_CONTAINER),
        ("HOSTNAME", "shop-web-7d4b9-x2x"),
    ])
    .await;
    let expected = [
        ("service.name", "shop"),
        ("service.namespace", "media"),
        ("service.version", "1,2"),
        ("service.instance.id", "media-prod.shop-web-7d4b9-x2x.web"),
        ("deployment.environment.name", "production"),
        ("k8s.pod.name", "shop-web-7d4b9-x2x"),
        ("k8s.pod.uid", "9b2e4c1a-6f0d-4c3b-9a57-1f2e3d4c5b6a"),
        ("k8s.pod.ip", "10.1.2.3"),
        ("k8s.namespace.name", "media-prod"),
        ("k8s.node.name", "node-7"),
        ("k8s.container.name", "web"),
        ("container.id", APPLICATIONS_CONTAINER),
        ("host.name", "shop-web-7d4b9-x2x"),
        ("team", "video & sound"),
    ];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!(application, expected);
    assert_eq!(
        (sidecar["service.name"].as_str(), sidecar["k8s.pod.name"].as_str()),
        ("shop-sidecar", "shop-web-7d4b9-x2x")
    );
    // the application's container is not the sidecar's
    assert_ne!(sidecar.get("container.id"), Some(&APPLICATIONS_CONTAINER.to_owned()));
    assert!(!sidecar.contains_key("k8s.container.name"));
}

#[tokio::test]
async fn our_own_setting_wins_over_every_variable_of_others_and_a_resource_is_clean_and_bounded() {
    let long = format!("long={},api_key=nobodys-key,team=of hunter2-secret", "x".repeat(5_000));
    let [application, _] = resources(&[
        ("SIDECAR_SERVICE__NAME", "ours"),
        ("OTEL_SERVICE_NAME", "theirs"),
        ("OTEL_RESOURCE_ATTRIBUTES", &long),
        ("APP_SECRET", "hunter2-secret"),
        ("HOSTNAME", "laptop"),
    ])
    .await;
    assert_eq!(application["service.name"], "ours");
    assert_eq!(application["service.instance.id"], "laptop");
    assert_eq!(application["long"].len(), 4_095);
    assert_eq!(application["api_key"], "[REDACTED:key]");
    assert_eq!(application["team"], "of [REDACTED:secret]");
}
