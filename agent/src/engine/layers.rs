//! The settings of this node as they change.

use tortie_api::Kind;
use tortie_api::resource::Resource;
use tortie_datastore::Stored;

use super::Context;
use crate::config::{Layer, SettingProblem, Settings, from_resource};

/// The `FelixConfiguration` objects that concern this node.
pub(super) struct FelixLayers {
    node_name: String,
    default: Option<Layer>,
    node: Option<Layer>,
    changed: bool,
}

impl FelixLayers {
    pub(super) fn new(node: &str) -> Self {
        Self { node_name: format!("node.{node}"), default: None, node: None, changed: false }
    }

    /// Those that are there now. Of these ones they keep what they have no good value for.
    pub(super) fn read_again(&self, context: &Context) -> anyhow::Result<Self> {
        let mut layers = Self::new(&context.node);
        let list = context.store.list(Kind::FelixConfiguration, None)?;
        for Stored { resource, .. } in &list.items {
            if let Resource::FelixConfiguration(object) = &**resource {
                let name = &object.metadata.name;
                let before = self.of(name).cloned();
                layers.put(name, Some(from_resource(name, &object.spec)), before.as_ref());
            }
        }
        layers.changed = false;
        Ok(layers)
    }

    /// The layer of a `FelixConfiguration`.
    fn of(&self, name: &str) -> Option<&Layer> {
        match name {
            "default" => self.default.as_ref(),
            name if name == self.node_name => self.node.as_ref(),
            _ => None,
        }
    }

    pub(super) fn set(&mut self, resource: &Resource) {
        let Resource::FelixConfiguration(object) = resource else { return };
        let name = &object.metadata.name;
        let before = self.of(name).cloned();
        self.put(name, Some(from_resource(name, &object.spec)), before.as_ref());
    }

    pub(super) fn remove(&mut self, key: &tortie_api::Key) {
        if key.kind == Kind::FelixConfiguration {
            self.put(&key.name, None, None);
        }
    }

    /// `before` is what the layer was, whose values stand in for those of it that are not understood.
    fn put(&mut self, name: &str, mut layer: Option<Layer>, before: Option<&Layer>) {
        if let (Some(layer), Some(before)) = (&mut layer, before) {
            layer.remember(before);
        }
        let slot = if name == "default" {
            &mut self.default
        } else if name == self.node_name {
            &mut self.node
        } else {
            return;
        };
        if *slot != layer {
            *slot = layer;
            self.changed = true;
        }
    }

    pub(super) fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn resolve(&self, local: &[Layer]) -> (Settings, Vec<SettingProblem>) {
        Settings::resolve(self.default.iter().chain(&self.node).chain(local))
    }
}

/// Brings settings to those who follow them, and tells what is wrong with them.
pub(super) fn report_settings(context: &Context, settings: &Settings, problems: &[SettingProblem]) {
    crate::logging::set_level(settings.log_level);
    for problem in problems {
        tracing::warn!(source = problem.source, name = problem.name, "{}", problem.message);
    }
    context.shared.set_settings(settings, problems);
}
