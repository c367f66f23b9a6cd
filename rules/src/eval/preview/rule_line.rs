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
        let parts = parts(entity);
        if !parts.is_empty() {
            let _ = write!(line, " {word} {}", parts.join(" and "));
        }
    }
    if let Some(http) = &rule.http {
        let methods =
            if http.methods.is_empty() { String::new() } else { format!(" {}", list(&http.methods)) };
        let _ = write!(line, " if it is HTTP{methods}");
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

fn parts(entity: &EntityRule) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(entity.selector.as_ref().map(|s| s.source().to_owned()));
    parts.extend(entity.not_selector.as_ref().map(|s| format!("not ({})", s.source())));
    parts.extend(entity.namespace_selector.as_ref().map(|s| format!("namespaces with {}", s.source())));
    if let Some(accounts) = &entity.service_accounts {
        if !accounts.names.is_empty() {
            parts.push(format!("service account {}", list(&accounts.names)));
        }
        parts.extend(accounts.selector.as_ref().map(|s| format!("service accounts with {}", s.source())));
    }
    if let Some(service) = &entity.services {
        let namespace = service.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        parts.push(format!("service {namespace}{}", service.name));
    }
    let mut lists = |before: &str, texts: Vec<String>| {
        if !texts.is_empty() {
            parts.push(format!("{before}{}", list(&texts)));
        }
    };
    lists("", texts(&entity.nets));
    lists("not ", texts(&entity.not_nets));
    lists("port ", texts(&entity.ports));
    lists("not port ", texts(&entity.not_ports));
    parts
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn list(texts: &[String]) -> String {
    texts.join(", ")
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
            "Log not 47 from namespaces with team == 'red' and 10.0.0.0/8 and not 10.1.0.0/16 to service db"
        );
    }
}
