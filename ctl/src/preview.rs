//! `tortiectl preview`: what a change would change.

use tortie_api::resource::Resource;
use tortie_rules::eval::Cluster;
use tortie_rules::eval::preview::preview;

use crate::cli::{Files, PreviewArgs, Shared};
use crate::console::Console;
use crate::input::Document;
use crate::world::World;
use crate::{Error, apply, input, object, output};

/// Runs the command.
pub(crate) fn run(args: &PreviewArgs, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    if args.files.is_empty() && !args.staged {
        return Err(Error::Usage("name the manifests of the change with -f, or use --staged".to_owned()));
    }
    let against = Files { files: args.against.clone(), recursive: args.recursive };
    let Some(world) = World::read(&against, shared, console)? else { return Ok(()) };
    let before = world.cluster(console);
    let after = if args.staged {
        world.configured().0.with_staged_in_force()
    } else {
        match changed(world, args, shared, console) {
            Some(after) => after,
            None => return Ok(()),
        }
    };
    let report = preview(&before, &after);
    match args.output {
        None => console.say(&format!("{report}\n")),
        Some(format) => output::say(&serde_json::to_value(&report)?, format, console)?,
    }
    Ok(())
}

/// The cluster after the change; `None` if the change makes no sense, which has been reported.
fn changed(mut world: World, args: &PreviewArgs, shared: &Shared, console: &mut Console) -> Option<Cluster> {
    let errors_before = console.errors();
    let (_, known) = world.configured();
    let files = Files { files: args.files.clone(), recursive: args.recursive };
    for document in input::read(&files, shared.namespace.as_deref(), console) {
        let place = document.place.clone();
        let result = if args.delete { delete(&mut world, &document) } else { put(&mut world, document) };
        if let Err(message) = result {
            console.error(&format!("{place}: {message}"));
        }
    }
    let (after, bad) = world.configured();
    for setting in bad.iter().filter(|setting| !known.contains(setting)) {
        console.error(&setting.to_string());
    }
    (console.errors() == errors_before).then_some(after)
}

fn delete(world: &mut World, document: &Document) -> Result<(), String> {
    world.0.remove(&document.key).map(|_| ()).ok_or_else(|| object::not_found(&document.key))
}

fn put(world: &mut World, document: Document) -> Result<(), String> {
    let Document { key, value, resource, .. } = document;
    let changed = match world.0.get(&key) {
        Some((live, _)) => {
            let value = apply::applied(&value, live);
            let resource = Resource::from_value(&value).map_err(|error| format!("{key}: {error}"))?;
            (value, resource)
        }
        None => (value, resource),
    };
    world.0.insert(key, changed);
    Ok(())
}
