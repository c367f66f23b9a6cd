//! Label selectors of the command line, in kubectl's syntax.

use std::collections::BTreeMap;

use tortie_api::kube::{Operator, Requirement};

/// What `-l` asks for. All requirements must hold.
#[derive(Debug, Default)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Reads `app=web,tier!=db,env in (a,b),env notin (a,b),app,!app`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = split_outside_parentheses(text);
        let requirements: Result<Vec<_>, String> = parts.into_iter().map(requirement).collect();
        requirements
            .map(Self)
            .map_err(|part| format!("{part:?} in the label selector {text:?} is not understood"))
    }

    /// Whether labels are what is asked for.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let is_listed = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => is_listed,
                Operator::NotIn => !is_listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut depth = 0_usize;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// One requirement; the text itself if it is none.
fn requirement(text: &str) -> Result<Requirement, String> {
    let part = text.trim();
    let (key, operator, values) = if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(|| text.to_owned())?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key, Operator::In, values),
            [key, "notin"] => (key, Operator::NotIn, values),
            _ => return Err(text.to_owned()),
        }
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Operator::NotIn, vec![value.trim().to_owned()])
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Operator::In, vec![value.trim().to_owned()])
    } else if let Some(key) = part.strip_prefix('!') {
        (key, Operator::DoesNotExist, Vec::new())
    } else {
        (part, Operator::Exists, Vec::new())
    };
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let key = key.trim();
    if key.is_empty() || !is_word(key) || !values.iter().all(|value| is_word(value)) {
        return Err(text.to_owned());
    }
    Ok(Requirement { key: key.to_owned(), operator, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_form_of_kubectl_is_understood() {
        let web: &[(&str, &str)] = &[("app", "web"), ("example.com/env", "prod")];
        for selector in [
            "app=web",
            "app==web",
            "app = web",
            "app!=db",
            "tier!=db",
            "app in (db, web)",
            "app notin (db,cache)",
            "tier notin (db)",
            "app",
            "!tier",
            "app=web,example.com/env in (prod,test),!tier",
        ] {
            assert!(matches(selector, web), "{selector}");
        }
        for selector in
            ["app=db", "app!=web", "app in (db)", "app notin (web)", "tier", "!app", "app=web,tier", "app="]
        {
            assert!(!matches(selector, web), "{selector}");
        }
    }

    #[test]
    fn what_is_no_requirement_is_refused_by_name() {
        for selector in ["", "app=web,", "a b", "app in (web", "app of (web)", "=web", "app>3", "a=b=c", "!"]
        {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
        let error = LabelSelector::parse("app=web,a b").unwrap_err();
        assert_eq!(error, r#""a b" in the label selector "app=web,a b" is not understood"#);
    }
}
