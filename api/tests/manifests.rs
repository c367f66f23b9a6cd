//! Manifests, seen from outside: what is read from a text, and where faults are said to be.

use serde_json::json;
use tortie_api::manifest::{DOCUMENT_MAX_BYTES, Document, DocumentError, Manifest, parse_documents};
use tortie_api::{Key, Kind, Resource};

fn documents(text: &str) -> Vec<Document> {
    parse_documents(text.as_bytes())
}

fn manifests(text: &str) -> Vec<Manifest> {
    documents(text).into_iter().map(|d| d.outcome.unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// The only document of a text, which must be refused.
fn refusal(text: &str) -> DocumentError {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).outcome.expect_err("it was taken")
}

/// What is said about a text, with the key of the object that it was meant to be.
#[track_caller]
fn assert_refused(text: &str, key: &str, message: &str) {
    let error = refusal(text);
    assert_eq!(error.to_string(), message);
    assert_eq!(error.key.map(|key| key.to_string()).unwrap_or_default(), key);
}

/// A network policy with this text as its spec; the spec begins on line 7.
fn policy(spec: &str) -> String {
    let head = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: web\n  namespace: shop\nspec:\n";
    format!("{head}{spec}")
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

#[test]
fn every_object_of_real_clusters_is_read() {
    for (text, objects) in [
        (include_str!("data/policies.yaml"), 13),
        (include_str!("data/host-endpoints.yaml"), 8),
        (include_str!("data/kubernetes.yaml"), 20),
    ] {
        let keys: Vec<_> = manifests(text).into_iter().map(|manifest| manifest.key).collect();
        assert_eq!(keys.len(), objects, "{keys:?}");
    }
}

#[test]
fn kinds_that_are_not_known_hurt_no_other_object() {
    let text = [
        namespace("a"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n".to_owned(),
        namespace("b"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\n".to_owned(),
    ];
    let documents = documents(&text.join("---\n"));
    let (good, bad): (Vec<_>, Vec<_>) = documents.into_iter().map(|d| d.outcome).partition(Result::is_ok);
    assert_eq!(good.len(), 2);
    let bad: Vec<_> = bad.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect();
    let message = "kind: unknown kind \"Secret\" of apiVersion \"v1\"";
    assert_eq!(bad, [format!("line 7: {message}"), format!("line 16: {message}")]);
}

#[test]
fn an_object_keeps_what_was_written_beside_what_it_means() {
    let manifest = manifests(&policy("  selector: app=='web'\n  ingress: []\n")).remove(0);
    assert_eq!(manifest.key, Key::new(Kind::NetworkPolicy, Some("shop"), "web"));
    assert_eq!(manifest.value["spec"], json!({"selector": "app=='web'", "ingress": []}));
    let Resource::NetworkPolicy(policy) = manifest.resource else { panic!("{:?}", manifest.resource) };
    assert_eq!(policy.spec.tier, "default");
    assert_eq!(policy.spec.selector.unwrap().canonical(), "app == \"web\"");
}

#[test]
fn json_is_read_too() {
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\", \
                \"annotations\": {\"face\": \"\\ud83d\\ude00\"}}\n}\n";
    assert_eq!(manifests(text)[0].resource.metadata().annotations["face"], "😀");
}

#[test]
fn documents_say_where_they_begin() {
    let text = format!("# a comment\n\n{}---\n# none\n---\n\n{}", namespace("a"), namespace("b"));
    let lines: Vec<_> = documents(&text).iter().map(|document| document.first_line).collect();
    assert_eq!(lines, [3, 11]);
}

#[test]
fn the_items_of_a_list_are_objects_of_their_own() {
    let text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- apiVersion: v1\n  kind: Namespace\n  \
                metadata: {name: a}\n- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: B\n";
    let documents = documents(text);
    assert_eq!(documents[0].outcome.as_ref().unwrap().key.to_string(), "Namespace/a");
    let error = documents[1].outcome.as_ref().unwrap_err();
    assert_eq!((error.line, error.field.as_str(), documents[1].first_line), (11, "metadata.name", 8));
}

#[test]
fn the_items_of_a_typed_list_have_its_kind() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: a}\n  spec: {podSelector: {}}\n";
    let manifest = manifests(text).remove(0);
    assert_eq!(manifest.key, Key::new(Kind::KubeNetworkPolicy, None, "a"));
    assert_eq!(manifest.value["kind"], "NetworkPolicy");
}

#[test]
fn a_list_without_items_is_no_object() {
    assert_eq!(documents("apiVersion: v1\nkind: List\nitems: []\n"), []);
    assert_refused(
        "apiVersion: v1\nkind: List\nitem: []\n",
        "",
        "line 3: item: unknown field `item` of a list",
    );
}

#[test]
fn two_objects_of_one_name_are_both_returned() {
    let keys: Vec<_> =
        manifests(&format!("{}---\n{}", namespace("a"), namespace("a"))).into_iter().map(|m| m.key).collect();
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_policy_of_a_tier_that_may_not_exist_is_read() {
    let manifest = manifests(&policy("  tier: nowhere\n")).remove(0);
    let Resource::NetworkPolicy(policy) = manifest.resource else { panic!("{:?}", manifest.resource) };
    assert_eq!(policy.spec.tier, "nowhere");
}

#[test]
fn a_broken_document_hurts_no_other() {
    let text = format!("{}---\nkind: [\n---\n{}", namespace("a"), namespace("b"));
    let good: Vec<_> =
        documents(&text).into_iter().filter_map(|d| d.outcome.ok()).map(|m| m.key.name).collect();
    assert_eq!(good, ["a", "b"]);
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_line() {
    assert_refused(
        &policy("  selector: all()\n\tingress: []\n"),
        "NetworkPolicy/shop/web",
        "line 8: a tab cannot indent a line: use spaces",
    );
    let error = refusal(&policy("  selector: \"app == 'web'\n"));
    assert_eq!(error.line, 7, "{error}");
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    let message = "a manifest is a mapping with apiVersion, kind and metadata";
    assert_refused("# a\nhello\n", "", &format!("line 2: {message}"));
    assert_refused("- a\n", "", &format!("line 1: {message}"));
}

#[test]
fn an_unknown_field_is_refused_with_the_fields_that_exist() {
    assert_refused(
        &policy("  ingress:\n  - action: Allow\n    sorce: {}\n"),
        "NetworkPolicy/shop/web",
        "line 9: spec.ingress[0].sorce: unknown field `sorce`, expected one of `action`, `ipVersion`, `protocol`, \
         `icmp`, `notProtocol`, `notICMP`, `source`, `destination`, `http`, `metadata`",
    );
    let error = refusal("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  label: {}\n");
    assert_eq!((error.line, error.field.as_str()), (5, "metadata.label"));
    let error = refusal("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspecs: {}\n");
    assert_eq!((error.line, error.field.as_str()), (5, "specs"));
    let error = refusal(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec:\n  logPrefx: x\n",
    );
    assert_eq!(error.to_string(), "line 5: spec.logPrefx: unknown field `logPrefx`");
}

#[test]
fn an_unknown_kind_is_refused() {
    assert_refused(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
        "",
        "line 2: kind: unknown kind \"Secret\" of apiVersion \"v1\"",
    );
    assert_refused(
        "kind: Tier\napiVersion: projectcalico.org/v1\nmetadata: {name: a}\n",
        "",
        "line 2: apiVersion: Tier is not served as apiVersion \"projectcalico.org/v1\"; use projectcalico.org/v3",
    );
    assert_refused("foo: bar\n", "", "line 1: apiVersion: is required");
}

#[test]
fn a_selector_with_a_syntax_error_is_refused() {
    assert_refused(
        &policy("  ingress:\n  - action: Allow\n    source:\n      selector: app == web\n"),
        "NetworkPolicy/shop/web",
        "line 10: spec.ingress[0].source.selector: expected a quoted string at column 8, found \"web\"",
    );
}

#[test]
fn an_impossible_network_is_refused() {
    let rule = |net: &str| {
        policy(&format!(
            "  ingress:\n  - action: Allow\n    source:\n      nets:\n      - 10.0.0.0/8\n      - {net}\n"
        ))
    };
    assert_refused(
        &rule("10.0.0.0/33"),
        "NetworkPolicy/shop/web",
        "line 12: spec.ingress[0].source.nets[1]: \"10.0.0.0/33\" is no IP address and no CIDR like 10.0.0.0/8 or fd00::/8",
    );
    assert_refused(
        &rule("10.0.0.1/8"),
        "NetworkPolicy/shop/web",
        "line 12: spec.ingress[0].source.nets[1]: \"10.0.0.1/8\" has bits set beyond its prefix length; did you mean 10.0.0.0/8?",
    );
}

#[test]
fn a_port_range_upside_down_is_refused() {
    assert_refused(
        &policy(
            "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination: {ports: [80, '8010:8000']}\n",
        ),
        "NetworkPolicy/shop/web",
        "line 10: spec.ingress[0].destination.ports[1]: port range \"8010:8000\" is upside down: the first port is above \
         the last",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    assert_refused(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    example.com/tier: a\n    example.com/tier.no: 5\n",
        "Namespace/a",
        "line 7: metadata.labels.example.com/tier.no: invalid type: integer `5`, expected a string",
    );
    assert_refused(
        &policy("  ingress:\n  - action: allow\n"),
        "NetworkPolicy/shop/web",
        "line 8: spec.ingress[0].action: unknown variant `allow`, expected one of `Allow`, `Deny`, `Log`, `Pass`",
    );
}

#[test]
fn a_missing_field_is_reported_at_the_structure_that_lacks_it() {
    assert_refused(
        &policy("  ingress:\n  - protocol: TCP\n"),
        "NetworkPolicy/shop/web",
        "line 8: spec.ingress[0]: missing field `action`",
    );
    assert_refused("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "", "line 3: metadata.name: is required");
}

#[test]
fn a_rule_that_null_would_turn_into_allow_everything_is_refused() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\nspec:\n  podSelector: {}\n  ingress:\n  -\n";
    assert_refused(
        text,
        "NetworkPolicy.networking.k8s.io/default/a",
        "line 8: spec.ingress[0]: invalid type: null, expected a mapping",
    );
}

#[test]
fn a_namespace_is_for_namespaced_kinds_only() {
    assert_refused(
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  name: a\n  namespace: shop\n",
        "Tier/a",
        "line 5: metadata.namespace: a Tier has no namespace",
    );
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    assert_refused(
        &policy("  selector: a == 'b'\n  order: 1\n  selector: all()\n"),
        "NetworkPolicy/shop/web",
        "line 9: spec.selector: the key \"selector\" is there twice",
    );
}

#[test]
fn ten_megabytes_in_one_document_are_refused_and_the_rest_is_read() {
    let mut text = policy("  ingress:\n");
    while text.len() < 10_000_000 {
        text.push_str("  - action: Allow\n    source: {nets: [10.0.0.0/8]}\n");
    }
    let text = format!("{}---\n{text}---\n{}", namespace("a"), namespace("b"));
    let outcomes: Vec<_> = documents(&text).into_iter().map(|document| document.outcome).collect();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.key.as_ref().unwrap().to_string(), "NetworkPolicy/shop/web");
    assert_eq!(
        error.to_string(),
        format!("line 6: is larger than {DOCUMENT_MAX_BYTES} bytes, the most that one document may have")
    );
}

#[test]
fn ten_megabytes_of_small_documents_are_read() {
    let one = format!("---\n{}", namespace("a"));
    let text = one.repeat(10_000_000 / one.len());
    assert!(parse_documents(text.as_bytes()).iter().all(|document| document.outcome.is_ok()));
}

#[test]
fn a_byte_that_is_no_utf8_is_refused_with_its_line_and_the_rest_is_read() {
    let mut text = format!("{}---\n", namespace("a")).into_bytes();
    text.extend_from_slice(policy("  selector: app == '\u{fc}").as_bytes());
    text.extend_from_slice(b"\xff'\n---\n");
    text.extend_from_slice(namespace("b").as_bytes());
    let outcomes: Vec<_> = parse_documents(&text).into_iter().map(|document| document.outcome).collect();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "line 12: byte 0xff is not valid UTF-8");
    assert_eq!(error.key.as_ref().unwrap().to_string(), "NetworkPolicy/shop/web");
}

#[test]
fn a_name_that_may_be_incomplete_is_no_key() {
    let text =
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: web\n  labels: {a: \"\n";
    assert_eq!(refusal(text).key, None);
    let text = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  name: web\n  labels: {a: \"\n";
    assert_eq!(refusal(text).key.unwrap().to_string(), "Tier/web");
}

#[test]
fn aliases_stand_for_values_within_bounds() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: &name a\n  labels: &labels {x: *name}\n  annotations:\n    \
                <<: *labels\n    y: z\n";
    let manifest = manifests(text).remove(0);
    assert_eq!(manifest.value["metadata"]["annotations"], json!({"x": "a", "y": "z"}));

    let list = |of: &str| format!("[{}]", [of; 10].join(", "));
    let levels = (1..20).map(|level| format!("a{level}: &a{level} {}\n", list(&format!("*a{}", level - 1))));
    let bomb = format!("a0: &a0 {}\n{}", list("x"), levels.collect::<String>());
    assert_refused(&bomb, "", "line 6: holds more than 500000 values");
    assert_refused("a: &a [*a]\n", "", "line 1: a[0]: an alias cannot stand for a value that it is part of");
}

#[test]
fn structures_nest_within_bounds() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_refused(&deep(65), "", "line 1: is nested more than 64 levels deep");
    assert_refused(&deep(60), "", "line 1: a manifest is a mapping with apiVersion, kind and metadata");
}

#[test]
fn a_carriage_return_in_the_middle_of_a_line_is_refused() {
    assert_refused(
        &namespace("a").replace("name: a\n", "name: a\r---\rx\n"),
        "",
        "line 4: a carriage return stands here without a line feed after it",
    );
    let windows = namespace("a").replace('\n', "\r\n");
    assert_eq!(manifests(&windows)[0].key.name, "a");
}

#[test]
fn an_error_of_an_object_without_lines_has_the_path() {
    let error = Resource::from_value(&json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "a"},
        "spec": {"nets": ["10.0.0.0/8", "x"]},
    }))
    .unwrap_err();
    assert_eq!(error.field, "spec.nets[1]");
}

#[test]
fn what_defaults_change_stays_as_written_in_the_value() {
    let text = format!("{}  labels: {{kubernetes.io/metadata.name: other}}\n", namespace("shop"));
    let found = manifests(&format!("{text}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\n"));
    assert_eq!(found[0].value["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "other"}));
    assert_eq!(found[0].resource.metadata().labels["kubernetes.io/metadata.name"], "shop");
    assert_eq!(found[1].value.get("spec"), None);
    let Resource::Pod(pod) = &found[1].resource else { panic!("{:?}", found[1]) };
    assert_eq!(pod.spec.service_account_name, "default");
}
