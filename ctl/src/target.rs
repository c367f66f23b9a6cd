//! Which objects the words of a command line mean.

use tortie_api::kind::{DEFAULT_NAMESPACE, Key, Kind};

use crate::Error;
use crate::cli::{Selection, Shared};
use crate::labels::LabelSelector;

/// Both kinds of nodes: which of them a datastore has is nothing that its user thinks of.
const NODE_KINDS: [Kind; 2] = [Kind::Node, Kind::KubeNode];

/// Words for one kind that only calicoctl has.
const CALICOCTL_WORDS: [(&str, Kind); 3] = [
    ("gnps", Kind::GlobalNetworkPolicy),
    ("gnetset", Kind::GlobalNetworkSet),
    ("gnetsets", Kind::GlobalNetworkSet),
];

/// A type as typed, and the kinds that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    /// As typed.
    pub(crate) word: String,
    /// At least one.
    pub(crate) kinds: Vec<Kind>,
}

impl Type {
    fn parse(word: &str) -> Result<Self, Error> {
        let kinds = match word.to_ascii_lowercase().as_str() {
            "all" => Kind::ALL.to_vec(),
            // Calico's tools list Kubernetes' policies among them too.
            "policy" | "policies" | "pol" | "pols" => {
                Kind::ALL.into_iter().filter(|kind| kind.is_policy()).collect()
            }
            "node" | "nodes" | "no" | "nos" => NODE_KINDS.to_vec(),
            lower => {
                let calicoctl =
                    CALICOCTL_WORDS.iter().find(|(word, _)| *word == lower).map(|(_, kind)| *kind);
                let kind = Kind::from_word(word).or(calicoctl);
                vec![
                    kind.ok_or_else(|| Error::Usage(format!("there is no type of objects called {word:?}")))?,
                ]
            }
        };
        Ok(Self { word: word.to_owned(), kinds })
    }

    fn parse_list(words: &str) -> Result<Vec<Self>, Error> {
        words.split(',').map(Self::parse).collect()
    }
}

/// What is meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// All objects of these types.
    Types(Vec<Type>),
    /// These objects.
    Names(Vec<(Type, String)>),
}

impl Targets {
    /// Reads `TYPE,TYPE`, `TYPE,TYPE NAME...` and `TYPE/NAME...`.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Error> {
        if words.iter().any(|word| word.contains('/')) {
            return words.iter().map(|word| type_and_name(word)).collect::<Result<_, _>>().map(Self::Names);
        }
        let Some((types, names)) = words.split_first() else {
            return Err(Error::Usage("name a type of objects".to_owned()));
        };
        let types = Type::parse_list(types)?;
        if names.is_empty() {
            return Ok(Self::Types(types));
        }
        if names.iter().any(String::is_empty) {
            return Err(Error::Usage("a name is empty".to_owned()));
        }
        let pairs = names.iter().flat_map(|name| types.iter().map(move |kind| (kind.clone(), name.clone())));
        Ok(Self::Names(pairs.collect()))
    }
}

fn type_and_name(word: &str) -> Result<(Type, String), Error> {
    match word.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
            Ok((Type::parse(kind)?, name.to_owned()))
        }
        _ => Err(Error::Usage(format!("{word:?} is not TYPE/NAME"))),
    }
}

/// Which namespaces are meant, and which labels.
#[derive(Debug)]
pub(crate) struct Scope {
    /// None for all.
    pub(crate) namespace: Option<String>,
    /// Only these objects.
    pub(crate) labels: LabelSelector,
}

impl Scope {
    /// What the options of a command say, checked against its targets.
    pub(crate) fn new(selection: &Selection, shared: &Shared, targets: &Targets) -> Result<Self, Error> {
        if matches!(targets, Targets::Names(_)) {
            if selection.all_namespaces {
                return Err(Error::Usage(
                    "objects are named within one namespace: use -n, not -A".to_owned(),
                ));
            }
            if selection.selector.is_some() {
                return Err(Error::Usage("give names or -l, not both".to_owned()));
            }
        }
        let labels =
            selection.selector.as_deref().map(LabelSelector::parse).transpose().map_err(Error::Usage)?;
        let namespace = (!selection.all_namespaces).then(|| namespace(shared).to_owned());
        Ok(Self { namespace, labels: labels.unwrap_or_default() })
    }

    /// The key of a named object.
    pub(crate) fn key(&self, kind: Kind, name: &str) -> Key {
        Key::new(kind, self.namespace.as_deref(), name)
    }
}

/// The namespace of objects that name none.
pub(crate) fn namespace(shared: &Shared) -> &str {
    shared.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Targets, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Targets::parse(&words).map_err(|error| error.to_string())
    }

    fn one(word: &str, kind: Kind) -> Type {
        Type { word: word.to_owned(), kinds: vec![kind] }
    }

    #[test]
    fn types_and_names_are_told_apart() {
        assert_eq!(
            parse(&["po,svc"]),
            Ok(Targets::Types(vec![one("po", Kind::Pod), one("svc", Kind::Service)]))
        );
        assert_eq!(
            parse(&["gnp", "a", "b"]),
            Ok(Targets::Names(vec![
                (one("gnp", Kind::GlobalNetworkPolicy), "a".to_owned()),
                (one("gnp", Kind::GlobalNetworkPolicy), "b".to_owned())
            ]))
        );
        assert_eq!(
            parse(&["netpol/a", "pod/b"]),
            Ok(Targets::Names(vec![
                (one("netpol", Kind::KubeNetworkPolicy), "a".to_owned()),
                (one("pod", Kind::Pod), "b".to_owned())
            ]))
        );
    }

    #[test]
    fn words_for_several_kinds_are_known() {
        let Ok(Targets::Types(types)) = parse(&["Policies"]) else { panic!("types") };
        assert!(
            types[0].kinds.contains(&Kind::NetworkPolicy)
                && types[0].kinds.contains(&Kind::KubeNetworkPolicy)
        );
        assert!(types[0].kinds.iter().all(|kind| kind.is_policy()));
        let Ok(Targets::Types(types)) = parse(&["nodes"]) else { panic!("types") };
        assert_eq!(types[0].kinds, NODE_KINDS);
        let Ok(Targets::Types(types)) = parse(&["all"]) else { panic!("types") };
        assert_eq!(types[0].kinds, Kind::ALL);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(parse(&["pods,deploy"]), Err(r#"there is no type of objects called "deploy""#.to_owned()));
        assert_eq!(parse(&["pod/a", "b"]), Err(r#""b" is not TYPE/NAME"#.to_owned()));
        assert_eq!(parse(&["pod/"]), Err(r#""pod/" is not TYPE/NAME"#.to_owned()));
        assert_eq!(parse(&["pod", ""]), Err("a name is empty".to_owned()));
    }

    #[test]
    fn words_of_calicoctl_do_not_hide_words_of_the_api() {
        for (word, _) in CALICOCTL_WORDS {
            assert_eq!(Kind::from_word(word), None, "{word}");
        }
    }
}
