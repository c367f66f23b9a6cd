//! A rule in one line: `Allow TCP from app == 'web' to port 80`.

use std::fmt::{Display, Write as _};

use tortie_api::policy::{EntityRule, Icmp, Rule};

/// The rule in words; annotations are left out.
pub(super) fn rule_line(rule: &Rule) -> String {
    let mut line = format!("{:?}", rule.action);
    // Writing to a String cannot fail.
    let _ = rule.ip_version.map_or(Ok(()), |version| write!(line, " {version}"));
    let _ = rule.protocol.map_or(Ok(()), |protocol| write!(line, " {protocol}"));
    line.extend(rule.icmp.map(icmp));
    let _ = rule.not_protocol.map_or(Ok(()), |protocol| write!(line, " not {protocol}"));
    line.extend(rule.not_icmp.map(|not| format!(" not{}", icmp(not))));
    for (word, entity) in [("from", &rule.source), ("to", &rule.destination)] {
        line.extend(side(entity).map(|side| format!(" {word} {side}")));
    }
    if let Some(http) = &rule.http {
        line.push_str(" if it is HTTP");
        line.extend(listed(&http.methods).map(|methods| format!(" {methods}")));
        for path in &http.paths {
            line.extend(path.exact.as_ref().map(|exact| format!(" {exact}")));
            line.extend(path.prefix.as_ref().map(|prefix| format!(" {prefix}*")));
        }
    }
    line
}

fn icmp(icmp: Icmp) -> String {
    let mut text = icmp.icmp_type.map(|number| format!(" type {number}")).unwrap_or_default();
    text.extend(icmp.code.map(|code| format!(" code {code}")));
    text
}

/// One side in words; `None` if it is anybody.
fn side(entity: &EntityRule) -> Option<String> {
    let mut is = Vec::new();
    is.extend(entity.selector.as_ref().map(|s| s.source().to_owned()));
    is.extend(entity.namespace_selector.as_ref().map(|s| format!("namespaces with {}", s.source())));
    is.extend(entity.nodes.as_ref().map(|s| format!("nodes with {}", s.source())));
    if let Some(accounts) = &entity.service_accounts {
        is.extend(listed(&accounts.names).map(|names| format!("service account {names}")));
        is.extend(accounts.selector.as_ref().map(|s| format!("service accounts with {}", s.source())));
    }
    if let Some(service) = &entity.services {
        let namespace = service.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        is.push(format!("service {namespace}{}", service.name));
    }
    is.extend(listed(&entity.nets));
    let mut is_not = Vec::new();
    is_not.extend(entity.not_selector.as_ref().map(|s| s.source().to_owned()));
    is_not.extend(listed(&entity.not_nets));
    let who = (!is.is_empty()).then(|| is.join(" and "));
    let not = (!is_not.is_empty()).then(|| format!("not {}", is_not.join(", not ")));
    let who = match (who, not) {
        (Some(who), Some(not)) => Some(format!("{who} but {not}")),
        (who, not) => who.or(not),
    };
    let ports = listed(&entity.ports).map(|ports| format!("port {ports}"));
    let not_ports = listed(&entity.not_ports).map(|ports| format!("not port {ports}"));
    let words: Vec<String> = [who, ports, not_ports].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The entries of a list, if there are any.
fn listed<T: Display>(values: &[T]) -> Option<String> {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_like_a_sentence() {
        let line = |json: &str| rule_line(&serde_json::from_str(json).unwrap());
        assert_eq!(
            line(
                r#"{"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [80, "8000:8010"]}}"#
            ),
            "Allow TCP from app == 'web' to port 80, 8000:8010"
        );
        assert_eq!(line(r#"{"action": "Deny"}"#), "Deny");
        assert_eq!(
            line(r#"{"action": "Pass", "ipVersion": 4, "protocol": "ICMP", "icmp": {"type": 8, "code": 0}}"#),
            "Pass IPv4 ICMP type 8 code 0"
        );
        assert_eq!(
            line(
                r#"{"action": "Log", "notProtocol": 47, "source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "namespaceSelector": "team == 'red'"}, "destination": {"services": {"name": "db"}}}"#
            ),
            "Log not 47 from namespaces with team == 'red' and 10.0.0.0/8 but not 10.1.0.0/16 to service db"
        );
        assert_eq!(
            line(
                r#"{"action": "Allow", "protocol": "UDP", "source": {"notPorts": [53]}, "destination": {"selector": "all()", "notSelector": "has(x)", "ports": [1]}}"#
            ),
            "Allow UDP from not port 53 to all() but not has(x) port 1"
        );
    }
}
