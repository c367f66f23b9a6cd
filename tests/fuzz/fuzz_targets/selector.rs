//! Any text as a selector: it is refused, or its canonical text means the same.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tortie_api::selector::{Expr, Selector};

fuzz_target!(|input: (u64, &str)| {
    let (choice, text) = input;
    let Ok(selector) = Selector::parse(text) else { return };
    let again = Selector::parse(selector.canonical()).expect("canonical text is a selector");
    // `!(!(a))` has the text `!!a`, in which the negations cancel out as Calico reads it. No further round changes anything.
    let last = Selector::parse(again.canonical()).expect("canonical text is a selector");
    assert_eq!((last.canonical(), last.id()), (again.canonical(), again.id()));
    assert_eq!(last.expr(), again.expr());
    let labels = labels(selector.expr(), choice);
    let matches = selector.matches(&labels);
    assert_eq!(again.matches(&labels), matches);
    for (label, restriction) in selector.expr().restrictions() {
        let value = labels.get(&*label).map(String::as_str);
        assert!(!matches || restriction.allows(value), "{label} is {value:?}, but {restriction:?}");
    }
    // Both may be refused: they are longer than what was given.
    if let Ok(opposite) = Selector::parse(&format!("!({})", selector.canonical())) {
        assert_ne!(opposite.matches(&labels), matches);
    }
    if let Ok(prefixed) = selector.prefix_labels("pcns.") {
        let labels: BTreeMap<String, String> =
            labels.into_iter().map(|(label, value)| (format!("pcns.{label}"), value)).collect();
        assert_eq!(prefixed.matches(&labels), matches);
    }
});

/// Labels and values of the expression itself, those that the bits of `choice` pick.
fn labels(expr: &Expr, choice: u64) -> BTreeMap<String, String> {
    let mut terms = Vec::new();
    collect(expr, &mut terms);
    let picked = terms.into_iter().enumerate().filter(|(at, _)| choice.rotate_right(*at as u32) & 1 == 1);
    picked.map(|(_, (label, value))| (label.to_string(), value.to_string())).collect()
}

fn collect(expr: &Expr, terms: &mut Vec<(Arc<str>, Arc<str>)>) {
    match expr {
        Expr::All | Expr::Global => {}
        Expr::Has(label) => terms.push((label.clone(), "".into())),
        Expr::Eq(label, value)
        | Expr::NotEq(label, value)
        | Expr::Contains(label, value)
        | Expr::StartsWith(label, value)
        | Expr::EndsWith(label, value) => terms.push((label.clone(), value.clone())),
        Expr::In(label, values) | Expr::NotIn(label, values) => {
            terms.extend(values.iter().map(|value| (label.clone(), value.clone())));
        }
        Expr::Not(inner) => collect(inner, terms),
        Expr::And(all) | Expr::Or(all) => all.iter().for_each(|expr| collect(expr, terms)),
    }
}
