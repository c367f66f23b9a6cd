use tortie_api::manifest::parse_documents;
use tortie_api::resource::Resource;

use super::*;

const EVERY_FIELD: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: full, namespace: shop}
spec:
  ingress:
  - action: Deny
    protocol: ICMP
    icmp: {type: 8, code: 0}
    notICMP: {type: 3}
    metadata: {annotations: {a: b, c: ''}}
    source: {nets: ['10.0.0.0/8', '192.168.1.5/32'], notNets: ['10.1.0.0/16'], selector: \"a == 'b'\", notSelector: 'has(x)'}
    destination: {namespaceSelector: all(), serviceAccounts: {names: [x, y], selector: \"k in {'v'}\"}}
  - {action: Log, notProtocol: 17, ipVersion: 6}
  - {action: Pass, protocol: 132, destination: {notNets: ['fd00::/8']}}
  - action: Allow
    protocol: TCP
    http: {methods: [GET, PUT], paths: [{exact: /a}, {prefix: /b}]}
    destination: {ports: [80, '1000:2000', web], notPorts: [443, other]}
  - {action: Allow, source: {services: {name: db, namespace: data}}}
";

#[test]
fn rules_come_out_as_they_went_in() {
    let document = parse_documents(EVERY_FIELD.as_bytes()).into_iter().next().expect("one document");
    let resource = document.outcome.expect("the manifest is valid").resource;
    let Resource::NetworkPolicy(policy) = resource else { panic!("a network policy") };
    let rules = &policy.spec.ingress;
    assert_eq!(rules.len(), 5);
    let mut parsed = Parsed::default();
    for own in ["a == \"b\"", "all()"] {
        let both = PackedRules::new(own, Some(rules), Some(&rules[2..]));
        assert_eq!(both.unpack(own, &mut parsed), [rules.clone(), rules[2..].to_vec()]);
        let one = PackedRules::new(own, None, Some(rules));
        assert_eq!(one.unpack(own, &mut parsed), [Vec::new(), rules.clone()]);
        assert!(both.has_ingress() && both.has_egress() && !one.has_ingress() && one.has_egress());
    }
    let none = PackedRules::new("", None, None);
    assert_eq!(none.unpack("", &mut parsed), [Vec::new(), Vec::new()]);
}

#[test]
fn selectors_come_out_right_however_many_there_are_and_however_often() {
    let rule = |n: usize| {
        let selector = Some(Selector::parse(&format!("has(key-{})", n % 12)).unwrap());
        let source = EntityRule { selector, ..EntityRule::default() };
        Rule { source, ..Rule::new(Action::Allow) }
    };
    let rules: Vec<Rule> = (0..40).map(rule).collect();
    let packed = PackedRules::new("has(key-3)", Some(&rules), Some(&[]));
    assert_eq!(packed.unpack("has(key-3)", &mut Parsed::default()), [rules, Vec::new()]);
}

#[test]
fn a_blank_selector_stays_blank() {
    let selector = Some(Selector::parse(" ").unwrap());
    let source = EntityRule { selector, ..EntityRule::default() };
    let rule = Rule { source, ..Rule::new(Action::Allow) };
    let packed = PackedRules::new("all()", Some(&[rule]), None);
    let [ingress, _] = packed.unpack("all()", &mut Parsed::default());
    assert_eq!(ingress[0].source.selector.as_ref().map(Selector::source), Some(""));
}
