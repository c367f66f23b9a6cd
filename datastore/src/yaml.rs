//! Writing YAML as kubectl prints it: keys sorted, lists not indented further than their key.

use serde_json::Value;

/// The YAML text of an object, ending with a line feed.
///
/// Every text that YAML 1.1 or 1.2 would read as something else (`yes`, `1`, `null`, `0x1f`) is quoted; texts of
/// several lines become literal blocks; long lines are not folded, since people search for what they wrote.
pub fn to_yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        compact_list_indent: true,
        folded_wrap_chars: usize::MAX / 2,
        yaml_12: false,
    };
    // The emitter has no error for a JSON value; if it ever had one, JSON is YAML as well.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_else(|_| format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tortie_api::manifest::parse_documents;

    use super::*;

    #[test]
    fn it_looks_like_kubectls() {
        let value = json!({
            "kind": "NetworkPolicy",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "a", "labels": {"version": "1.10", "on": "yes"}, "annotations": {"note": "x\ny\n"}},
            "spec": {
                "selector": "app == 'web' && has(tier)",
                "order": 10.5,
                "types": ["Ingress", "Egress"],
                "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "8000:8080"]}}],
                "egress": [],
                "performanceHints": null,
            },
        });
        let expected = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  annotations:
    note: |
      x
      y
  labels:
    \"on\": \"yes\"
    version: \"1.10\"
  name: a
spec:
  egress: []
  ingress:
  - action: Allow
    destination:
      ports:
      - 80
      - 8000:8080
    protocol: TCP
  order: 10.5
  performanceHints: null
  selector: app == 'web' && has(tier)
  types:
  - Ingress
  - Egress
";
        assert_eq!(to_yaml(&value), expected);
    }

    fn tier(note: &str) -> Value {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": {"name": "a", "annotations": {"note": note}}, "spec": {"order": 5},
        })
    }

    fn reads_back(value: &Value) -> bool {
        let mut documents = parse_documents(to_yaml(value).as_bytes());
        documents.len() == 1
            && documents.pop().unwrap().outcome.is_ok_and(|manifest| manifest.value == *value)
    }

    /// Texts that YAML 1.1 or 1.2 gives a meaning to.
    const LOOKALIKES: &[&str] = &[
        "",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "true",
        "True",
        "null",
        "Null",
        "~",
        "1",
        "-1",
        "+1",
        "1.0",
        "1e3",
        ".5",
        "0x1f",
        "0o17",
        "017",
        "08",
        "0b11",
        "1_000",
        ".inf",
        "-.inf",
        ".nan",
        "1:30",
        "2001-01-01",
        "<<",
        "=",
        "-",
        "--",
        "---",
        "...",
        "?",
        ":",
        "- a",
        "? a",
        "a: b",
        "a:",
        ": a",
        "a #b",
        "#a",
        "*a",
        "&a",
        "!a",
        "!!str a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "[a",
        "{a",
        "]",
        "}",
        ",",
        "'",
        "\"",
        "''",
        "\\",
        " a",
        "a ",
        "\ta",
        "a\t",
        "\n",
        "\n\n",
        "a\n",
        "a\nb",
        "a\n\n",
        " a\nb",
        "\na",
        "a\n b\n",
        "a\n---\nb",
        "# a\n# b\n",
        "a\r\nb",
        "\r",
        "\0",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}",
        "é",
        "🐈",
    ];

    #[test]
    fn a_text_that_looks_like_something_else_is_still_a_text() {
        for text in LOOKALIKES {
            assert!(reads_back(&tier(text)), "{text:?}:\n{}", to_yaml(&tier(text)));
        }
    }

    #[test]
    fn a_long_line_is_not_folded() {
        let selector = vec!["has(a)"; 100].join(" || ");
        assert!(to_yaml(&json!({ "selector": selector })).contains(&selector));
    }

    proptest! {
        #[test]
        fn every_text_reads_back_as_it_was(note in any::<String>()) {
            prop_assert!(reads_back(&tier(&note)), "{}", to_yaml(&tier(&note)));
        }

        #[test]
        fn every_text_of_yaml_signs_reads_back_as_it_was(note in "[-a0 \n\t:#'\"|>%&*!?,{}\\[\\]\\\\.~<=_xeo+]{0,12}") {
            prop_assert!(reads_back(&tier(&note)), "{}", to_yaml(&tier(&note)));
        }

        #[test]
        fn every_number_reads_back_as_it_was(order in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let mut value = tier("");
            value["spec"]["order"] = json!(order);
            let documents = parse_documents(to_yaml(&value).as_bytes());
            // The API may refuse the number, but never read another one.
            if let Ok(manifest) = &documents[0].outcome {
                prop_assert_eq!(manifest.value["spec"]["order"].as_f64(), Some(order));
            }
        }
    }
}
