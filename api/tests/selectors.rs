//! The selector language, seen from outside: spelling, meaning, canonical text, ids, and what is refused.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use tortie_api::selector::{Expr, MAX_LABEL, MAX_NESTING, Selector, SelectorError};

type LabelMap = BTreeMap<String, String>;

fn labels(pairs: &[(&str, &str)]) -> LabelMap {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn refusal(text: &str) -> SelectorError {
    match Selector::parse(text) {
        Ok(selector) => panic!("{text:?} was taken as {selector}"),
        Err(error) => error,
    }
}

fn assert_canonical(cases: &[(&str, &str)]) {
    for (text, canonical) in cases {
        assert_eq!(parse(text).canonical(), *canonical, "canonical text of {text:?}");
    }
}

#[derive(Deserialize)]
struct VectorFile {
    vectors: Vec<Vector>,
    refused: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Vector {
    selector: String,
    r#match: Vec<LabelMap>,
    no_match: Vec<LabelMap>,
}

fn vector_file() -> VectorFile {
    serde_json::from_str(include_str!("data/selectors.json")).expect("the vectors are valid JSON")
}

#[test]
fn every_vector_selects_what_it_should_and_nothing_else() {
    let file = vector_file();
    assert_eq!(file.vectors.len(), 141);
    for vector in &file.vectors {
        let written = parse(&vector.selector);
        // The verdict must survive the canonical text, which is what other code composes selectors of.
        for selector in [&written, &parse(written.canonical())] {
            for labels in &vector.r#match {
                assert!(
                    selector.matches(labels),
                    "{:?} as {selector} should match {labels:?}",
                    vector.selector
                );
            }
            for labels in &vector.no_match {
                assert!(
                    !selector.matches(labels),
                    "{:?} as {selector} must not match {labels:?}",
                    vector.selector
                );
            }
        }
    }
}

#[test]
fn every_refused_vector_is_refused() {
    let file = vector_file();
    assert_eq!(file.refused.len(), 15);
    for text in &file.refused {
        assert!(refusal(text).column().is_some(), "{text:?}");
    }
}

#[test]
fn restrictions_hold_for_everything_that_the_vectors_match() {
    for vector in &vector_file().vectors {
        let restrictions = parse(&vector.selector).expr().restrictions();
        for labels in &vector.r#match {
            for (label, restriction) in &restrictions {
                let value = labels.get(&**label).map(String::as_str);
                assert!(restriction.allows(value), "{:?}: {restriction:?} on {labels:?}", vector.selector);
            }
        }
    }
}

#[test]
fn canonical_texts_and_ids_are_those_of_calico() {
    let cases = [
        ("", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        (" all() ", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        (" (all() )", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
        (
            "! (a == \"b\"&&! c != \"d\")",
            "!(a == \"b\" && !c != \"d\")",
            "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w",
        ),
        ("a == 'b'", "a == \"b\"", "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ"),
        ("a in {\"b\",\"a\"}", "a in {\"a\", \"b\"}", "s:9_m7wGzS6DBRW0E2xvXSZcEzJkXmVVNAsAI50Q"),
        ("a not in {\"e\",\"d\"}", "a not in {\"d\", \"e\"}", "s:xzbLCujW8tjlYj_sFg2TeG9fT0wVLHety7bIcA"),
        (
            "has(projectcalico.org/namespace)",
            "has(projectcalico.org/namespace)",
            "s:2dAotJA2sZ5pOhC_BaBuAFekzFsoGV350DfHsw",
        ),
        ("global()", "global()", "s:fiJDJdBoaP_zQxty70sMjIrxwAb5lgM6LYCAow"),
        ("role=='client'", "role == \"client\"", "s:Djx4jfRE_TwnMVpqaxS1NR3o9coFLerM7iAUzw"),
    ];
    for (text, canonical, id) in cases {
        let selector = parse(text);
        assert_eq!(selector.canonical(), canonical, "canonical text of {text:?}");
        assert_eq!(selector.id(), id, "id of {text:?}");
    }
}

#[test]
fn space_and_tab_are_blanks_and_nothing_else_is() {
    assert_canonical(&[
        ("\t a\t==\t'b' \t", "a == \"b\""),
        (" \t ", "all()"),
        ("a=='b'&&c=='d'", "(a == \"b\" && c == \"d\")"),
    ]);
    for text in [
        "\n",
        "a ==\n'b'",
        "a == 'b'\n",
        "a == 'b' &&\r\nc == 'd'",
        "has(\na)",
        "a\u{a0}== 'b'",
        "a == 'b'\0",
    ] {
        refusal(text);
    }
    assert_eq!(
        refusal("a == 'b'\n&& c == 'd'").to_string(),
        r#"expected &&, || or the end at column 9, found "\n""#
    );
}

#[test]
fn words_of_an_operator_may_have_any_number_of_blanks_between_them() {
    assert_canonical(&[
        ("a notin {'x'}", "a not in {\"x\"}"),
        ("a not \t  in {'x'}", "a not in {\"x\"}"),
        ("a startswith 'x'", "a starts with \"x\""),
        ("a starts   with'x'", "a starts with \"x\""),
        ("a endswith 'x'", "a ends with \"x\""),
        ("a ends\twith 'x'", "a ends with \"x\""),
    ]);
}

#[test]
fn an_operator_word_ends_where_a_value_begins() {
    assert_canonical(&[
        ("a in{\"b\"}", "a in {\"b\"}"),
        ("a not in{\"b\"}", "a not in {\"b\"}"),
        ("a contains\"b\"", "a contains \"b\""),
    ]);
    for text in [
        "a inx {\"b\"}",
        "a in_ {\"b\"}",
        "a in. {\"b\"}",
        "a not inx {'b'}",
        "a notinx {'b'}",
        "a containsx 'b'",
        "a startswithx 'b'",
        "a starts withx 'b'",
        "a ends 'b'",
        "a starts 'b'",
        "a not 'b'",
        "a not {'b'}",
        "a IN {'b'}",
    ] {
        refusal(text);
    }
}

#[test]
fn a_label_may_be_called_like_a_keyword() {
    assert_canonical(&[
        ("in in {'in'}", "in in {\"in\"}"),
        ("contains contains 'x'", "contains contains \"x\""),
        ("all == 'x'", "all == \"x\""),
        ("global != 'x'", "global != \"x\""),
        ("not not in {'x'}", "not not in {\"x\"}"),
        ("starts starts with 'x'", "starts starts with \"x\""),
        ("has(has) && has == 'x'", "(has(has) && has == \"x\")"),
        ("hass == 'x'", "hass == \"x\""),
    ]);
    refusal("has has 'x'");
}

#[test]
fn a_call_takes_blanks_inside_its_parentheses_and_none_before() {
    assert_canonical(&[("has( \ta )", "has(a)"), ("all( )", "all()"), ("global(\t)", "global()")]);
    for text in [
        "has (x)",
        "all ()",
        "global ()",
        "has()",
        "has('x')",
        "has(a b)",
        "all(x)",
        "has(a",
        "all(",
        "xhas(a)",
    ] {
        refusal(text);
    }
}

#[test]
fn strings_have_no_escapes_and_hold_the_other_quote() {
    assert_canonical(&[
        (r#"a == 'say "hi"'"#, r#"a == 'say "hi"'"#),
        (r#"a == "it's""#, r#"a == "it's""#),
        (r"a == 'b\n'", r#"a == "b\n""#),
        ("a == 'b && c'", "a == \"b && c\""),
        ("a == 'ü\n'", "a == \"ü\n\""),
        (r#"a in {'"', "'", "b"}"#, r#"a in {'"', "'", "b"}"#),
    ]);
    assert_eq!(
        refusal(r"ü == 'a\'' ").to_string(),
        r#"expected a label, has(...), all(), global(), "!" or "(" at column 1, found "ü""#
    );
    assert_eq!(refusal(r"a == 'a\''").column(), Some(10));
    assert_eq!(refusal("a == 'b\""), SelectorError::UnterminatedString { quote: '\'', column: 6 });
}

#[test]
fn a_set_may_be_empty_and_may_end_in_a_comma() {
    assert_canonical(&[
        ("a in {}", "a in {}"),
        ("a in { }", "a in {}"),
        ("a in {'b',}", "a in {\"b\"}"),
        ("a in { 'b' , \"a\" , 'b' , }", "a in {\"a\", \"b\"}"),
        ("a in {'b', 'B', '', 'ä', 'aa'}", "a in {\"\", \"B\", \"aa\", \"b\", \"ä\"}"),
    ]);
    for text in [
        "a in {,}",
        "a in {'b' 'c'}",
        "a in {'b',,}",
        "a in {b}",
        "a in {'b'",
        "a in 'b'",
        "a in {'b',",
        "a in",
        "a in ('b')",
    ] {
        refusal(text);
    }
    assert_eq!(refusal("a in {'b'").to_string(), r#"expected "," or "}" at column 10, found the end"#);
    let (none, any) = (parse("a in {}"), parse("a not in {}"));
    for set in [labels(&[]), labels(&[("a", "")]), labels(&[("a", "b")])] {
        assert!(!none.matches(&set) && any.matches(&set), "{set:?}");
    }
}

#[test]
fn a_test_is_a_label_then_an_operator_then_a_value() {
    for text in [
        "a",
        "'x' == a",
        "a == b",
        "a ==",
        "== 'b'",
        "a 'b'",
        "a == 'b' c",
        "a == 'b' 'c'",
        "a == 'b' has(c)",
        "a == {'b'}",
    ] {
        refusal(text);
    }
}

#[test]
fn half_operators_are_named_in_the_error() {
    let expected = |text: &str| match refusal(text) {
        SelectorError::Unexpected { expected, column, .. } => (expected, column),
        other => panic!("{text:?}: {other}"),
    };
    assert_eq!(expected("a = 'b'"), ("==", 3));
    assert_eq!(expected("a ! 'b'"), ("!=", 3));
    assert_eq!(expected("has(a) & has(b)"), ("&&", 8));
    assert_eq!(expected("has(a) | has(b)"), ("||", 8));
    assert_eq!(expected("a == 'ü' & has(b)"), ("&&", 10));
}

#[test]
fn operators_and_parentheses_must_come_in_pairs() {
    for text in [
        "()",
        "( )",
        "(",
        ")",
        "!",
        "!()",
        "&&",
        "a == 'b' &&",
        "|| a == 'b'",
        "a == 'b' && || has(c)",
        "(has(a)",
        "has(a))",
        "(has(a)) has(b)",
        "((has(a))",
        "! = 'b'",
        "a ! = 'b'",
        "a = = 'b'",
        "has(a) & & has(b)",
    ] {
        refusal(text);
    }
    assert_eq!(refusal("has(a))").column(), Some(7));
    assert_eq!(refusal("(has(a)").to_string(), r#"expected &&, || or ")" at column 8, found the end"#);
}

#[test]
fn a_label_has_at_most_512_characters() {
    let longest = "x".repeat(MAX_LABEL);
    assert!(parse(&format!("has({longest})")).matches(&labels(&[(&longest, "")])));
    parse(&format!("{longest} == 'a'"));
    let error = SelectorError::LabelTooLong { length: MAX_LABEL + 1, column: 5 };
    assert_eq!(refusal(&format!("has({longest}x)")), error);
    assert_eq!(refusal(&format!("    {longest}x == 'a'")), error);
}

#[test]
fn comparison_binds_tighter_than_not_and_and_tighter_than_or() {
    assert_canonical(&[
        ("!a == 'b'", "!a == \"b\""),
        ("has(a) || has(b) && has(c) || has(d)", "(has(a) || (has(b) && has(c)) || has(d))"),
        ("!has(a) && has(b)", "(!has(a) && has(b))"),
    ]);
    let not_equal = parse("!a == 'b'");
    assert!(not_equal.matches(&labels(&[])) && not_equal.matches(&labels(&[("a", "c")])));
    assert!(!not_equal.matches(&labels(&[("a", "b")])));
    let or_last = parse("has(a) || has(b) && has(c)");
    assert!(or_last.matches(&labels(&[("a", "")])) && !or_last.matches(&labels(&[("b", "")])));
}

#[test]
fn canonical_text_keeps_order_and_grouping_and_drops_idle_parentheses() {
    assert_canonical(&[
        ("has(b) && has(a) && has(b)", "(has(b) && has(a) && has(b))"),
        ("(has(a) && has(b)) && has(c)", "((has(a) && has(b)) && has(c))"),
        ("has(a) && (has(b) && has(c))", "(has(a) && (has(b) && has(c)))"),
        ("((has(a))) || ((has(b) || has(c)))", "(has(a) || (has(b) || has(c)))"),
        ("((a == 'b' && (c == 'd')))", "(a == \"b\" && c == \"d\")"),
        ("all() && all()", "(all() && all())"),
    ]);
}

#[test]
fn a_row_of_nots_counts_by_parity_but_parentheses_separate_rows() {
    assert_canonical(&[
        ("!!has(b)", "has(b)"),
        ("! ! !has(b)", "!has(b)"),
        ("!(!has(b))", "!!has(b)"),
        ("!!(has(a) && has(b))", "(has(a) && has(b))"),
        ("!(has(a) && has(b))", "!(has(a) && has(b))"),
        ("!((has(a)))", "!has(a)"),
    ]);
}

#[test]
fn tests_of_a_label_mean_what_the_table_says() {
    let absent = labels(&[]);
    let value = |v: &str| labels(&[("k", v)]);
    // Columns: absent, "", "v", "xvy", "vy", "xv".
    let table = [
        ("k == 'v'", [false, false, true, false, false, false]),
        ("k == ''", [false, true, false, false, false, false]),
        ("k != 'v'", [true, true, false, true, true, true]),
        ("k in {'v', 'vy'}", [false, false, true, false, true, false]),
        ("k not in {'v', 'vy'}", [true, true, false, true, false, true]),
        ("k contains 'v'", [false, false, true, true, true, true]),
        ("k starts with 'v'", [false, false, true, false, true, false]),
        ("k ends with 'v'", [false, false, true, false, false, true]),
        ("k contains ''", [false, true, true, true, true, true]),
        ("has(k)", [false, true, true, true, true, true]),
        ("!has(k)", [true, false, false, false, false, false]),
        ("all()", [true; 6]),
        ("global()", [true; 6]),
        ("!all()", [false; 6]),
    ];
    let columns = [absent, value(""), value("v"), value("xvy"), value("vy"), value("xv")];
    for (text, verdicts) in table {
        for (labels, verdict) in columns.iter().zip(verdicts) {
            assert_eq!(parse(text).matches(labels), verdict, "{text} on {labels:?}");
        }
    }
}

#[test]
fn no_depth_of_nesting_overflows_the_stack() {
    let nested = |open: &str, levels: usize| format!("{}has(a){}", open.repeat(levels), ")".repeat(levels));
    for open in ["(", "!(", "has(b) && (", "has(b) || has(c) && !("] {
        assert!(matches!(refusal(&nested(open, 1_000_000)), SelectorError::TooDeep { .. }), "{open}");
    }
    // No text that the API's limit of 1024 characters lets in is refused for its depth.
    for open in ["(", "!("] {
        let levels = (1024 - "has(a)".len()) / (open.len() + 1);
        parse(&nested(open, levels));
    }
    parse(&nested("(", MAX_NESTING));
    assert_eq!(refusal(&nested("(", MAX_NESTING + 1)), SelectorError::TooDeep { column: MAX_NESTING + 1 });
}

#[test]
fn what_nests_as_deep_as_allowed_has_a_canonical_text_that_parses() {
    let open = "has(b) || has(c) && !(";
    let deepest = (0..=MAX_NESTING)
        .rev()
        .find_map(|n| Selector::parse(&format!("{}has(a){}", open.repeat(n), ")".repeat(n))).ok())
        .expect("some depth is allowed");
    assert_eq!(parse(deepest.canonical()), deepest);
    assert!(deepest.matches(&labels(&[("b", "")])));
}

#[test]
fn a_text_of_a_megabyte_is_parsed() {
    let terms: Vec<String> = (0..100_000).map(|i| format!("k{i} == 'v'")).collect();
    let selector = parse(&terms.join(" || "));
    assert!(selector.matches(&labels(&[("k99999", "v")])) && !selector.matches(&labels(&[("k1", "w")])));
}

#[test]
fn selectors_are_equal_by_meaningful_text_and_keep_what_was_typed() {
    let (typed, plain) = (parse(" (a=='b') "), parse("a == \"b\""));
    assert_eq!(typed, plain);
    assert_eq!(typed.cmp(&plain), std::cmp::Ordering::Equal);
    assert_eq!(HashSet::from([typed.clone(), plain.clone()]).len(), 1);
    assert!(parse("has(a)") > plain && parse("has(a)") != plain);
    assert_eq!(typed.source(), " (a=='b') ");
    assert_eq!(plain.source(), plain.canonical());
    assert_eq!(typed.to_string(), "a == \"b\"");
    assert_eq!(format!("{typed:?}"), "Selector(a == \"b\")");
}

#[test]
fn json_carries_the_typed_text_and_errors_say_what_is_wrong_where() {
    for typed in ["", "  a == 'b'", "has(a)"] {
        let json = serde_json::to_string(typed).unwrap();
        let selector: Selector = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
    }
    let error = serde_json::from_value::<Selector>(serde_json::json!("a = 'b'")).unwrap_err();
    assert_eq!(error.to_string(), r#"bad selector: expected == at column 3, found "=""#);
    assert!(serde_json::from_str::<Selector>("7").is_err());
}

#[test]
fn all_is_all_however_it_is_spelt() {
    for text in ["", " ", "all()", "((all( )))", "!!all()"] {
        assert!(parse(text).is_all() && parse(text) == Selector::all(), "{text:?}");
    }
    for text in ["!all()", "all() && all()", "global()", "a not in {}"] {
        assert!(!parse(text).is_all(), "{text:?}");
    }
}

#[test]
fn global_is_found_wherever_it_stands() {
    for text in ["global()", "has(a) || !(has(b) && global())"] {
        assert!(parse(text).contains_global(), "{text:?}");
    }
    for text in ["all()", "a == 'global()'", "has(global)"] {
        assert!(!parse(text).contains_global(), "{text:?}");
    }
}

#[test]
fn prefixes_go_before_every_label_and_nothing_else() {
    let text = "a == 'a' && b != 'b' && (c contains 'c' || d starts with 'd' || e ends with 'e') \
                && f in {'f'} && g not in {'g'} && !has(h) && all() && global()";
    assert_eq!(
        parse(text).prefix_labels("pcsa.").unwrap().canonical(),
        "(pcsa.a == \"a\" && pcsa.b != \"b\" && (pcsa.c contains \"c\" || pcsa.d starts with \"d\" || \
         pcsa.e ends with \"e\") && pcsa.f in {\"f\"} && pcsa.g not in {\"g\"} && !has(pcsa.h) && all() && global())"
    );
    let longest = format!("has({})", "x".repeat(MAX_LABEL));
    assert!(matches!(parse(&longest).prefix_labels("pcns."), Err(SelectorError::LabelTooLong { .. })));
    assert!(matches!(parse("has(a)").prefix_labels("b) || has("), Err(SelectorError::NotALabel(_))));
}

#[test]
fn namespace_clauses_say_has_a_namespace_for_all_and_has_none_for_global() {
    let cases = [
        ("", "has(projectcalico.org/namespace)"),
        ("global()", "!has(projectcalico.org/namespace)"),
        ("!global()", "has(projectcalico.org/namespace)"),
        ("!all()", "!has(projectcalico.org/namespace)"),
        ("env == 'prod' || global()", "(pcns.env == \"prod\" || !has(projectcalico.org/namespace))"),
        ("a == 'all()'", "pcns.a == \"all()\""),
    ];
    for (text, clause) in cases {
        assert_eq!(parse(text).namespace_clause().unwrap().canonical(), clause, "clause of {text:?}");
    }
}

#[test]
fn a_composed_selector_has_the_text_that_calico_gives_it() {
    let namespaces = parse("env == 'prod' || env == 'test'").namespace_clause().unwrap();
    let pods = parse("app == 'db' && tier == 'back'");
    let composed = parse(&format!("({namespaces}) && ({})", pods.source()));
    assert_eq!(
        composed.canonical(),
        "((pcns.env == \"prod\" || pcns.env == \"test\") && (app == \"db\" && tier == \"back\"))"
    );
}

#[test]
fn expressions_made_by_code_become_what_their_text_parses_to() {
    let has = |k: &str| Expr::Has(k.into());
    let not = |x| Expr::Not(Box::new(x));
    let cases = [
        (Expr::And(vec![]), "all()"),
        (Expr::Or(vec![]), "!all()"),
        (not(Expr::Or(vec![])), "all()"),
        (Expr::And(vec![has("a")]), "has(a)"),
        (Expr::Or(vec![Expr::And(vec![has("a"), has("b")])]), "(has(a) && has(b))"),
        (not(not(has("a"))), "has(a)"),
        (Expr::And(vec![has("a"), Expr::Or(vec![])]), "(has(a) && !all())"),
    ];
    for (expr, canonical) in cases {
        let selector = Selector::from_expr(&expr).unwrap();
        assert_eq!(selector.canonical(), canonical);
        for labels in [labels(&[]), labels(&[("a", "")]), labels(&[("a", ""), ("b", "")])] {
            assert_eq!(selector.matches(&labels), expr.matches(&labels), "{expr:?} on {labels:?}");
        }
    }
}

#[test]
fn expressions_made_by_code_cannot_break_out_of_their_text() {
    let both_quotes = "x' || all() || a == \"";
    for expr in [
        Expr::Eq("a".into(), both_quotes.into()),
        Expr::Not(Box::new(Expr::NotIn("a".into(), [both_quotes.into()].into()))),
        Expr::Has("a) || all(".into()),
        Expr::Has("".into()),
        Expr::And(vec![Expr::All, Expr::StartsWith("a b".into(), "".into())]),
    ] {
        let error = Selector::from_expr(&expr).expect_err("an expression without a text");
        assert_eq!(error.column(), None, "{error}");
    }
}
