//! Profiles: rules that apply where no tier decides, and labels for their endpoints.
//!
//! A profile's rules are converted while an endpoint of this node lists it; one that nobody defines denies
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_api::Key;
use tortie_api::convert::{NAMESPACE_PROFILE_PREFIX, SERVICE_ACCOUNT_PROFILE_PREFIX};
use tortie_api::policy::{Action, ProfileSpec, Rule};

use super::convert::{self, SetDefinition};
use super::model::{Event, Problem, ProfileRules, RuleSpec, SetId};
use super::sets::IpSets;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    /// Who defines each profile: a Profile document comes before what a Namespace or ServiceAccount implies.
    sources: BTreeMap<Arc<str>, BTreeMap<Key, ProfileSpec>>,
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
    /// Adds, changes or removes what one object says of a profile. Returns the labels that are now inherited.
    pub(crate) fn define(
        &mut self,
        name: &str,
        by: &Key,
        spec: Option<ProfileSpec>,
    ) -> BTreeMap<String, String> {
        let name: Arc<str> = name.into();
        let sources = self.sources.entry(name.clone()).or_default();
        match spec {
            Some(spec) => sources.insert(by.clone(), spec),
            None => sources.remove(by),
        };
        let labels = sources.values().next().map(|s| s.labels_to_apply.clone()).unwrap_or_default();
        if sources.is_empty() {
            self.sources.remove(&name);
        }
        self.dirty.insert(name);
        labels
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
                let rules = Arc::new(self.convert(&name, &mut definitions, &mut problems));
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
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        // A service account's profile has no rules anyway: its absence changes nothing.
        let is_missed = |name: &str| {
            !self.sources.contains_key(name)
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
        definitions: &mut Vec<SetDefinition>,
        problems: &mut Vec<Problem>,
    ) -> ProfileRules {
        let object = format!("Profile {name}");
        let (ingress, egress) = if let Some(spec) = self.sources.get(name).and_then(|s| s.values().next()) {
            let mut convert = |rules: &[Rule], direction| {
                convert::rules(rules, direction, &object, "", definitions, problems)
            };
            (convert(&spec.ingress, "ingress"), convert(&spec.egress, "egress"))
        } else {
            let action = if &**name == ALLOW_PROFILE { Action::Allow } else { Action::Deny };
            let bare: Vec<RuleSpec> =
                convert::rule(&Rule::new(action), "", definitions).into_iter().collect();
            (bare.clone(), bare)
        };
        ProfileRules { name: name.clone(), ingress, egress }
    }
}
