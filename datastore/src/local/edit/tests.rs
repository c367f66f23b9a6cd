use proptest::prelude::*;

use super::*;

#[test]
fn the_other_documents_stay_byte_for_byte() {
    let text = "# head\n\n---\n# about a\na: 1  # one\n\n# after a\n---   # b\nb:   {x: 1}\n...\n# end\n";
    assert_eq!(
        replace(text, 5, "a: 2\n").unwrap(),
        "# head\n\n---\n# about a\na: 2\n\n# after a\n---   # b\nb:   {x: 1}\n...\n# end\n"
    );
    assert_eq!(
        replace(text, 9, "b: 2\n").unwrap(),
        "# head\n\n---\n# about a\na: 1  # one\n\n# after a\n---   # b\nb: 2\n...\n# end\n"
    );
    assert_eq!(remove(text, 5).unwrap(), "# head\n\n---   # b\nb:   {x: 1}\n...\n# end\n");
}

#[test]
fn a_document_without_a_marker_line_can_be_changed() {
    assert_eq!(replace("a: 1\n---\nb: 1\n", 1, "a: 2\n").unwrap(), "a: 2\n---\nb: 1\n");
    assert_eq!(remove("a: 1\n---\nb: 1\n", 1).unwrap(), "---\nb: 1\n");
    assert_eq!(replace("a: 1", 1, "a: 2\n").unwrap(), "a: 2\n");
    assert_eq!(replace("a: 1\n...\nb: 1\n", 3, "b: 2\n").unwrap(), "a: 1\n...\nb: 2\n");
}

#[test]
fn content_on_the_marker_line_is_replaced() {
    assert_eq!(replace("--- {a: 1}\n--- {b: 1}", 2, "b: 2\n").unwrap(), "--- {a: 1}\n---\nb: 2\n");
}

#[test]
fn a_marker_counts_in_the_first_column_only() {
    let text = "a: |\n  ---\n  ...\nb: 1\n----: 1\n";
    assert_eq!(replace(text, 4, "c: 1\n").unwrap(), "c: 1\n");
    assert_eq!(spans("---\r\na: 1\r\n---\r\nb: 1\r\n").len(), 3);
}

#[test]
fn a_line_beyond_the_end_has_no_document() {
    assert_eq!(replace("a: 1\n", 7, "a: 2\n"), None);
    assert_eq!(remove("a: 1\n", 0), None);
}

proptest! {
    #[test]
    fn every_byte_outside_of_the_document_stays(
        before in "(---\n([a-c]: [0-9]\n|# [a-c]\n|\n){0,3}){0,3}",
        marker in "---( # [a-z]{1,3})?\n",
        content in "([a-c]: [0-9]\n){1,3}",
        after in "(---\n([a-c]: [0-9]\n|# [a-c]\n|\n){0,3}){0,3}",
    ) {
        let text = [before.as_str(), &marker, &content, &after].concat();
        let line = before.lines().count() + 2;
        let replaced = replace(&text, line, "new: 1\n").unwrap();
        prop_assert_eq!(replaced, [before.as_str(), &marker, "new: 1\n", &after].concat());
        prop_assert_eq!(remove(&text, line).unwrap(), [before.as_str(), &after].concat());
    }
}
