//! Profiles: which are in use on this node, what their rules are, which labels endpoints inherit from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;
use tortie_api::Kind;
use tortie_api::convert::{NAMESPACE_PROFILE_PREFIX, SERVICE_ACCOUNT_PROFILE_PREFIX};
use tortie_api::policy::{Action, ProfileSpec, Rule};

use super::convert::{self, SetNeed};
use super::label_index::Texts;
use super::model::{Event, Problem, ProfileRules, RuleSpec, SetId};
use super::packed_rules::{PackedRules, Parsed};
use super::sets::{IpSets, ProfileNumber};
use super::slab::Pages;

/// What defines a profile, sorted: a Profile document comes before what a Namespace or ServiceAccount implies, of
/// which there can only be one each. Almost all profiles have one definition.
#[derive(Debug)]
enum Sources {
    One(Source),
    Several(Box<SmallVec<[Source; 2]>>),
}

#[derive(Debug)]
struct Source {
    kind: Kind,
    /// Few definitions have any: they are mostly namespaces and service accounts, each in force alone.
    details: Option<Box<Details>>,
}

#[derive(Debug, Default)]
struct Details {
    /// If there are any.
    rules: Option<PackedRules>,
    /// Only while another one is in force: its labels are in the label index.
    labels: Option<Texts>,
}

/// The labels that a profile gives after a change.
#[derive(Debug)]
pub(crate) enum Inherited {
    /// Those that it gave before.
    Same,
    /// Those of the definition that came.
    Own,
    Other(Texts),
}

impl Sources {
    fn as_slice(&self) -> &[Source] {
        match self {
            Self::One(source) => std::slice::from_ref(source),
            Self::Several(sources) => sources,
        }
    }

    fn of(mut sources: Vec<Source>) -> Option<Self> {
        match sources.len() {
            0 => None,
            1 => sources.pop().map(Self::One),
            _ => Some(Self::Several(Box::new(sources.into()))),
        }
    }

    fn into_vec(self) -> Vec<Source> {
        match self {
            Self::One(source) => vec![source],
            Self::Several(sources) => sources.into_vec(),
        }
    }
}

impl Source {
    fn new(kind: Kind, spec: &ProfileSpec) -> Self {
        let has_rules = !spec.ingress.is_empty() || !spec.egress.is_empty();
        let rules = || PackedRules::new("", Some(&spec.ingress), Some(&spec.egress));
        let details = has_rules.then(|| Box::new(Details { rules: Some(rules()), labels: None }));
        Self { kind, details }
    }

    fn rules(&self) -> Option<&PackedRules> {
        self.details.as_ref()?.rules.as_ref()
    }

    fn has_labels(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.labels.is_some())
    }

    fn set_labels(&mut self, labels: Texts) {
        self.details.get_or_insert_default().labels = Some(labels);
    }

    fn take_labels(&mut self) -> Option<Texts> {
        self.details.as_mut()?.labels.take()
    }
}

/// Profiles: rules that apply where no tier decides, and labels for their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    /// Each holds its profile in the ip sets, where its name and labels are.
    sources: Pages<Sources>,
    /// Profiles that endpoints of this node list, with the number of those endpoints.
    users: BTreeMap<Arc<str>, u32>,
    held: BTreeMap<Arc<str>, Vec<SetId>>,
    dirty: BTreeSet<Arc<str>>,
    published: BTreeMap<Arc<str>, Arc<ProfileRules>>,
    problems: BTreeMap<Arc<str>, Vec<Problem>>,
}

/// The profile that allows everything, which exists in every cluster.
const ALLOW_PROFILE: &str = "projectcalico-default-allow";

impl Profiles {
    /// Adds, changes or removes what one object says of a profile. Returns what is inherited from now on.
    pub(crate) fn define(
        &mut self,
        name: &str,
        by: Kind,
        spec: Option<&ProfileSpec>,
        sets: &mut IpSets,
    ) -> Inherited {
        if self.users.contains_key(name) {
            self.dirty.insert(name.into());
        }
        let number = sets.profile(name);
        let known = number.and_then(|number| self.sources.remove(number));
        let held = number.filter(|_| known.is_some());
        let mut sources = known.map_or_else(Vec::new, Sources::into_vec);
        let Some(spec) = spec else {
            return held.map_or(Inherited::Same, |number| self.undefine(number, sources, by, sets));
        };
        let number = held.unwrap_or_else(|| sets.hold_profile(name));
        let mut new = Source::new(by, spec);
        let at = sources.partition_point(|source| source.kind < by);
        if at > 0 {
            let own = spec.labels_to_apply.iter().map(|(k, v)| (k.clone(), v.clone()));
            new.set_labels(own.collect());
        }
        if sources.get(at).is_some_and(|source| source.kind == by) {
            sources[at] = new;
        } else {
            sources.insert(at, new);
        }
        if at == 0
            && let Some(second) = sources.get_mut(1)
            && !second.has_labels()
        {
            second.set_labels(sets.profile_labels(name));
        }
        self.put(number, sources);
        if at == 0 { Inherited::Own } else { Inherited::Same }
    }

    fn undefine(
        &mut self,
        number: ProfileNumber,
        mut sources: Vec<Source>,
        by: Kind,
        sets: &mut IpSets,
    ) -> Inherited {
        let at = sources.iter().position(|source| source.kind == by);
        if let Some(at) = at {
            sources.remove(at);
        }
        // The one in force has no labels here, so there is nothing to take from it.
        let next = sources.first_mut().map(Source::take_labels);
        self.put(number, sources);
        let Some(labels) = next else {
            sets.drop_profile(number);
            return Inherited::Other(Texts::new());
        };
        labels.map_or(Inherited::Same, Inherited::Other)
    }

    fn put(&mut self, number: ProfileNumber, sources: Vec<Source>) {
        if let Some(sources) = Sources::of(sources) {
            self.sources.insert(number, sources);
        }
    }

    fn first_source(&self, name: &str, sets: &IpSets) -> Option<&Source> {
        self.sources.get(sets.profile(name)?)?.as_slice().first()
    }

    /// An endpoint of this node began to list a profile.
    pub(crate) fn acquire(&mut self, name: &Arc<str>) {
        *self.users.entry(name.clone()).or_insert(0) += 1;
        self.dirty.insert(name.clone());
    }

    /// An endpoint of this node ceased to list a profile.
    pub(crate) fn release(&mut self, name: &Arc<str>) {
        if let Some(users) = self.users.get_mut(name) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(name);
            }
        }
        self.dirty.insert(name.clone());
    }

    /// Converts what changed, so that its ip sets are known before they are flushed.
    pub(crate) fn prepare(&mut self, sets: &mut IpSets, added: &mut Vec<Event>, gone: &mut Vec<Event>) {
        for name in std::mem::take(&mut self.dirty) {
            let old = self.held.remove(&name).unwrap_or_default();
            if self.users.contains_key(&name) {
                let mut definitions = Vec::new();
                let mut problems = Vec::new();
                let rules = Arc::new(self.convert(&name, sets, &mut definitions, &mut problems));
                self.problems.insert(name.clone(), problems);
                let ids = definitions.iter().map(|d| sets.acquire(d)).collect();
                self.held.insert(name.clone(), ids);
                if self.published.get(&name) != Some(&rules) {
                    self.published.insert(name, rules.clone());
                    added.push(Event::Profile(rules));
                }
            } else if self.published.remove(&name).is_some() {
                self.problems.remove(&name);
                gone.push(Event::ProfileGone(name));
            }
            old.iter().for_each(|id| sets.release(id));
        }
    }

    /// What cannot be followed to the letter.
    pub(crate) fn problems<'a>(&'a self, sets: &'a IpSets) -> impl Iterator<Item = Problem> + 'a {
        // A service account's profile has no rules anyway: its absence changes nothing.
        let is_missed = |name: &str| {
            self.first_source(name, sets).is_none()
                && name != ALLOW_PROFILE
                && !name.starts_with(SERVICE_ACCOUNT_PROFILE_PREFIX)
        };
        let missing = self.users.keys().filter(move |name| is_missed(name)).map(|name| Problem {
            object: format!("Profile {name}"),
            key: None,
            field: "spec".to_owned(),
            message: match name.strip_prefix(NAMESPACE_PROFILE_PREFIX) {
                Some(namespace) => {
                    format!("there is no namespace {namespace:?}; its profile denies everything")
                }
                None => {
                    "an endpoint lists this profile, which does not exist; it denies everything".to_owned()
                }
            },
        });
        missing.chain(self.problems.values().flatten().cloned())
    }

    /// A profile that is listed but unknown denies everything.
    fn convert(
        &self,
        name: &Arc<str>,
        sets: &IpSets,
        definitions: &mut Vec<SetNeed>,
        problems: &mut Vec<Problem>,
    ) -> ProfileRules {
        let object = format!("Profile {name}");
        let (ingress, egress) = if let Some(source) = self.first_source(name, sets) {
            let mut parsed = Parsed::default();
            let rules = source.rules().map(|rules| rules.unpack("", &mut parsed));
            let [ingress, egress] = rules.unwrap_or_default();
            let mut convert = |rules: &[Rule], direction| {
                convert::rules(rules, direction, &object, "", definitions, problems)
            };
            (convert(&ingress, "ingress"), convert(&egress, "egress"))
        } else {
            let action = if &**name == ALLOW_PROFILE { Action::Allow } else { Action::Deny };
            let bare: Vec<RuleSpec> =
                convert::rule(&Rule::new(action), "", definitions).into_iter().collect();
            (bare.clone(), bare)
        };
        ProfileRules { name: name.clone(), ingress, egress }
    }
}
