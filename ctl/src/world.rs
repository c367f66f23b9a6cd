//! The objects that questions about policy are answered from: those of the datastore, or of a folder instead.

use std::collections::BTreeMap;

use serde_json::Value;
use tortie_api::Key;
use tortie_api::kind::Kind;
use tortie_api::resource::Resource;
use tortie_datastore::Datastore as _;
use tortie_rules::eval::{BadSetting, Cluster};

use crate::cli::{Files, Shared};
use crate::console::Console;
use crate::{Error, datastore, input, object};

/// Objects as written, and what they say, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct World(pub(crate) BTreeMap<Key, (Value, Resource)>);

impl World {
    /// Reads the manifests if there are any, else the datastore. Documents that cannot be used are left out with
    /// a warning, as an agent does it. `None` if what was asked for cannot be read, which has been reported.
    pub(crate) fn read(files: &Files, shared: &Shared, console: &mut Console) -> Result<Option<Self>, Error> {
        if files.files.is_empty() {
            return Self::of_datastore(shared, console).map(Some);
        }
        let errors_before = console.errors();
        let mut world = Self::default();
        for document in input::read_as_datastore(files, console) {
            let (key, place) = (document.key, document.place);
            if world.0.insert(key.clone(), (document.value, document.resource)).is_some() {
                console.note(&format!("warning: {place}: {key} is there twice; this one counts"));
            }
        }
        Ok((console.errors() == errors_before).then_some(world))
    }

    fn of_datastore(shared: &Shared, console: &mut Console) -> Result<Self, Error> {
        let store = datastore::open(shared)?;
        let mut world = Self::default();
        for kind in Kind::ALL {
            for stored in store.list(kind, None)?.items {
                let value = object::value(&stored);
                world.0.insert(stored.key, (value, (*stored.resource).clone()));
            }
        }
        for problem in store.problems() {
            console.note(&format!("warning: {problem}"));
        }
        Ok(world)
    }

    /// What it says of an object.
    pub(crate) fn resource(&self, key: &Key) -> Option<&Resource> {
        self.0.get(key).map(|(_, resource)| resource)
    }

    /// Everything that it says.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.0.values().map(|(_, resource)| resource)
    }

    /// The cluster, with the settings of its `FelixConfiguration` objects; those that cannot be used are left out
    /// with a warning.
    pub(crate) fn cluster(&self, console: &mut Console) -> Cluster {
        let (cluster, bad) = self.configured();
        for setting in bad {
            console.note(&format!("warning: {setting}"));
        }
        cluster
    }

    /// The same without warnings.
    pub(crate) fn configured(&self) -> (Cluster, Vec<BadSetting>) {
        Cluster::new(self.resources().cloned()).configured()
    }
}
