use proptest::prelude::*;

use super::*;
use crate::local::document;

/// A document of a network set; the net makes its version.
fn set(name: &str, net: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: {name}\nspec:\n  nets: [{net}]\n"
    )
}

/// A broken document that is still known to be this set.
fn broken_set(name: &str) -> String {
    set(name, "10.0.0.300/8")
}

const BROKEN: &str = "]: nobody knows what this was\n";

fn key(name: &str) -> Key {
    Key::new(Kind::GlobalNetworkSet, None, name)
}

/// Applies new texts of files, `None` for removed ones.
fn apply(folder: &mut Folder, files: &[(&str, Option<&[String]>)]) -> Vec<String> {
    let read = |documents: &[String]| document::read(documents.join("---\n").as_bytes());
    let readings = files.iter().map(|(path, text)| (PathBuf::from(path), text.map(read))).collect();
    let shown = |change: &Change| match change {
        Change::Added(stored) => format!("+{} {}", stored.key.name, net(stored)),
        Change::Modified(stored) => format!("~{} {}", stored.key.name, net(stored)),
        Change::Deleted(stored) => format!("-{} {}", stored.key.name, net(stored)),
    };
    folder.apply(readings).iter().map(shown).collect()
}

fn net(stored: &Stored) -> String {
    stored.value()["spec"]["nets"][0].as_str().unwrap_or_default().to_owned()
}

fn in_force(folder: &Folder, name: &str) -> Option<String> {
    folder.get(&key(name)).map(|object| net(&object.stored))
}

fn problems(folder: &Folder) -> Vec<String> {
    folder.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn changes_are_told_once() {
    let mut folder = Folder::default();
    let (a, b) = (set("a", "10.0.0.0/8"), set("b", "10.1.0.0/16"));
    assert_eq!(
        apply(&mut folder, &[("x.yaml", Some(&[a.clone(), b.clone()]))]),
        ["+a 10.0.0.0/8", "+b 10.1.0.0/16"]
    );
    assert!(apply(&mut folder, &[("x.yaml", Some(&[b.clone(), a]))]).is_empty());
    assert_eq!(apply(&mut folder, &[("x.yaml", Some(&[b, set("a", "10.2.0.0/16")]))]), ["~a 10.2.0.0/16"]);
    assert_eq!(apply(&mut folder, &[("x.yaml", None)]), ["-a 10.2.0.0/16", "-b 10.1.0.0/16"]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn an_object_stays_in_force_while_its_document_is_broken() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.0.0.0/8"), set("b", "10.1.0.0/16")]))]);
    let changes = apply(&mut folder, &[("x.yaml", Some(&[broken_set("a"), set("b", "10.2.0.0/16")]))]);
    assert_eq!(changes, ["~b 10.2.0.0/16"]);
    assert_eq!(in_force(&folder, "a").as_deref(), Some("10.0.0.0/8"));
    let problem = &folder.problems()[0];
    assert_eq!((problem.line, problem.key.clone(), problem.is_covered), (Some(6), Some(key("a")), true));
    assert_eq!(problem.field.as_deref(), Some("spec.nets[0]"));

    // Also when it is broken a second time, and until it is mended.
    apply(&mut folder, &[("x.yaml", Some(&[set("b", "10.2.0.0/16"), broken_set("a")]))]);
    assert_eq!(in_force(&folder, "a").as_deref(), Some("10.0.0.0/8"));
    let changes =
        apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.3.0.0/16"), set("b", "10.2.0.0/16")]))]);
    assert_eq!(changes, ["~a 10.3.0.0/16"]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn another_object_can_be_removed_from_a_file_with_a_broken_document_that_is_known() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.0.0.0/8"), set("b", "10.1.0.0/16")]))]);
    assert_eq!(apply(&mut folder, &[("x.yaml", Some(&[broken_set("a")]))]), ["-b 10.1.0.0/16"]);
    assert_eq!(in_force(&folder, "a").as_deref(), Some("10.0.0.0/8"));
}

#[test]
fn nothing_is_removed_from_a_file_with_a_broken_document_that_is_not_known() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.0.0.0/8"), set("b", "10.1.0.0/16")]))]);
    let changes = apply(&mut folder, &[("x.yaml", Some(&[BROKEN.to_owned(), set("b", "10.2.0.0/16")]))]);
    assert_eq!(changes, ["~b 10.2.0.0/16"]);
    assert_eq!(in_force(&folder, "a").as_deref(), Some("10.0.0.0/8"));
    assert!(folder.problems()[0].is_covered);
    // With the doubt goes the object.
    assert_eq!(apply(&mut folder, &[("x.yaml", Some(&[set("b", "10.2.0.0/16")]))]), ["-a 10.0.0.0/8"]);
}

#[test]
fn a_removed_file_takes_its_broken_documents_along() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.0.0.0/8")]))]);
    apply(&mut folder, &[("x.yaml", Some(&[broken_set("a")]))]);
    assert_eq!(apply(&mut folder, &[("x.yaml", None)]), ["-a 10.0.0.0/8"]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn a_document_that_was_never_good_is_only_a_problem() {
    let mut folder = Folder::default();
    assert!(apply(&mut folder, &[("x.yaml", Some(&[broken_set("a")]))]).is_empty());
    assert!(!folder.problems()[0].is_covered);
}

#[test]
fn of_two_documents_the_first_by_path_is_in_force_and_the_other_takes_over() {
    let mut folder = Folder::default();
    let changes = apply(
        &mut folder,
        &[("b.yaml", Some(&[set("a", "10.2.0.0/16")])), ("a.yaml", Some(&[set("a", "10.1.0.0/16")]))],
    );
    assert_eq!(changes, ["+a 10.1.0.0/16"]);
    assert_eq!(
        problems(&folder),
        ["b.yaml:1: GlobalNetworkSet/a: this object is defined already in a.yaml:1, which stays in force"]
    );
    assert_eq!(apply(&mut folder, &[("a.yaml", None)]), ["~a 10.2.0.0/16"]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn a_later_document_does_not_take_over_even_if_its_path_comes_first() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("b.yaml", Some(&[set("a", "10.1.0.0/16")]))]);
    assert!(apply(&mut folder, &[("a.yaml", Some(&[set("a", "10.2.0.0/16")]))]).is_empty());
    assert_eq!(
        problems(&folder),
        ["a.yaml:1: GlobalNetworkSet/a: this object is defined already in b.yaml:1, which stays in force"]
    );
    // Nor when the one in force breaks.
    assert!(apply(&mut folder, &[("b.yaml", Some(&[broken_set("a")]))]).is_empty());
    assert_eq!(in_force(&folder, "a").as_deref(), Some("10.1.0.0/16"));
}

#[test]
fn a_second_document_in_the_same_file_is_a_problem_wherever_it_stands() {
    let mut folder = Folder::default();
    let (old, new) = (set("a", "10.1.0.0/16"), set("a", "10.2.0.0/16"));
    apply(&mut folder, &[("x.yaml", Some(std::slice::from_ref(&old)))]);
    assert!(apply(&mut folder, &[("x.yaml", Some(&[new, old]))]).is_empty());
    assert_eq!(
        problems(&folder),
        ["x.yaml:1: GlobalNetworkSet/a: this object is defined already in x.yaml:8, which stays in force"]
    );
    assert_eq!(folder.places(&key("a")), [("x.yaml".into(), 1), ("x.yaml".into(), 8)]);
}

#[test]
fn a_good_document_elsewhere_ends_the_doubt_about_a_broken_one() {
    let mut folder = Folder::default();
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.1.0.0/16")]))]);
    apply(&mut folder, &[("x.yaml", Some(&[BROKEN.to_owned()]))]);
    assert_eq!(apply(&mut folder, &[("y.yaml", Some(&[set("a", "10.2.0.0/16")]))]), ["~a 10.2.0.0/16"]);
    assert_eq!(folder.problems().len(), 1);
}

#[test]
fn a_renamed_file_changes_nothing_even_if_it_is_broken() {
    let mut folder = Folder::default();
    let text = [set("a", "10.1.0.0/16"), broken_set("b")];
    apply(&mut folder, &[("x.yaml", Some(&[set("a", "10.1.0.0/16"), set("b", "10.2.0.0/16")]))]);
    apply(&mut folder, &[("x.yaml", Some(&text))]);
    assert!(apply(&mut folder, &[("x.yaml", None), ("y.yaml", Some(&text))]).is_empty());
    assert_eq!(in_force(&folder, "b").as_deref(), Some("10.2.0.0/16"));
    assert_eq!(apply(&mut folder, &[("y.yaml", Some(&[]))]), ["-a 10.1.0.0/16", "-b 10.2.0.0/16"]);
}

#[test]
fn a_list_is_of_one_kind_and_namespace() {
    let mut folder = Folder::default();
    let pod = |namespace: &str, name: &str| {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n")
    };
    apply(
        &mut folder,
        &[("x.yaml", Some(&[pod("x", "b"), pod("y", "a"), pod("x", "a"), set("a", "10.0.0.0/8")]))],
    );
    let names = |namespace| {
        let list = folder.list(Kind::ServiceAccount, namespace);
        list.map(|s| s.key.to_string().replace("ServiceAccount/", "")).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["x/a", "x/b", "y/a"]);
    assert_eq!(names(Some("x")), ["x/a", "x/b"]);
    assert!(names(Some("z")).is_empty());
    assert_eq!(folder.list(Kind::GlobalNetworkSet, None).count(), 1);
}

/// One step: what some files hold now, as (file, documents as (object, version)).
type Step = Vec<(u8, Option<Vec<(u8, u8)>>)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let documents = proptest::collection::vec((0..4_u8, 0..3_u8), 0..3);
    let step = proptest::collection::vec((0..3_u8, proptest::option::weighted(0.8, documents)), 1..3);
    proptest::collection::vec(step, 1..12)
}

fn readings(step: &Step) -> BTreeMap<PathBuf, Option<Reading>> {
    let text = |documents: &Vec<(u8, u8)>| {
        let texts = documents
            .iter()
            .map(|(object, version)| set(&format!("o{object}"), &format!("10.{version}.0.0/16")));
        document::read(texts.collect::<Vec<_>>().join("---\n").as_bytes())
    };
    step.iter()
        .map(|(file, documents)| (PathBuf::from(format!("{file}.yaml")), documents.as_ref().map(text)))
        .collect()
}

proptest! {
    #[test]
    fn the_changes_add_up_to_what_the_files_say(steps in steps()) {
        let mut folder = Folder::default();
        let mut files = BTreeMap::new();
        let mut mirrored: BTreeMap<Key, String> = BTreeMap::new();
        for step in &steps {
            for change in folder.apply(readings(step)) {
                let stored = change.stored();
                let before = match &change {
                    Change::Deleted(_) => mirrored.remove(&stored.key),
                    _ => mirrored.insert(stored.key.clone(), net(stored)),
                };
                prop_assert_eq!(matches!(change, Change::Added(_)), before.is_none());
            }
            files.extend(step.iter().cloned());
        }
        let mut said: BTreeMap<Key, BTreeSet<String>> = BTreeMap::new();
        for (object, version) in files.values().flatten().flatten() {
            said.entry(key(&format!("o{object}"))).or_default().insert(format!("10.{version}.0.0/16"));
        }
        prop_assert_eq!(mirrored.keys().collect::<Vec<_>>(), said.keys().collect::<Vec<_>>());
        for (key, net) in &mirrored {
            prop_assert!(said[key].contains(net));
        }
        let documents = files.values().flatten().map(Vec::len).sum::<usize>();
        prop_assert_eq!(folder.problems().len(), documents - mirrored.len());
    }
}
