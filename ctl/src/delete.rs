//! `tortiectl delete`.

use tortie_api::kind::Key;
use tortie_datastore::{Datastore, Error as StoreError};

use crate::cli::{DeleteArgs, Shared};
use crate::console::Console;
use crate::target::{Scope, Targets, Type};
use crate::{Error, chain, datastore, input, object};

/// Runs the command.
pub(crate) fn run(args: &DeleteArgs, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    let selection = &args.selection;
    if selection.words.is_empty() {
        let store = datastore::open(shared)?;
        for document in input::read(&selection.input, shared.namespace.as_deref(), console) {
            delete(&store, &document.key, Some(&document.place), args.ignore_not_found, console);
        }
        return Ok(());
    }
    let targets = Targets::parse(&selection.words)?;
    let scope = Scope::new(selection, shared, &targets)?;
    match targets {
        Targets::Names(_) if args.all => Err(Error::Usage("give names or --all, not both".to_owned())),
        Targets::Names(names) => delete_named(&names, &scope, args, shared, console),
        Targets::Types(_) if !args.all && selection.selector.is_none() => {
            Err(Error::Usage("name the objects, or use -l or --all".to_owned()))
        }
        Targets::Types(types) => delete_types(&types, &scope, shared, console),
    }
}

fn delete_named(
    names: &[(Type, String)],
    scope: &Scope,
    args: &DeleteArgs,
    shared: &Shared,
    console: &mut Console,
) -> Result<(), Error> {
    let store = datastore::open(shared)?;
    for (kinds, name) in names {
        match keys_called(&store, kinds, name, scope)[..] {
            [] if args.ignore_not_found => {}
            [] => console.error(&format!("{}/{name} not found", kinds.word)),
            [ref key] => delete(&store, key, None, args.ignore_not_found, console),
            ref keys => {
                let name_of = |key: &Key| format!("{}/{name}", object::exact_type_name(key.kind));
                let keys: Vec<_> = keys.iter().map(name_of).collect();
                console.error(&format!(
                    "{}/{name} could be {}: name one of them",
                    kinds.word,
                    keys.join(" or ")
                ));
            }
        }
    }
    Ok(())
}

/// The object meant; of a word for several kinds, those that exist, be their documents broken.
fn keys_called(store: &dyn Datastore, kinds: &Type, name: &str, scope: &Scope) -> Vec<Key> {
    let mut keys: Vec<Key> = kinds.kinds.iter().map(|kind| scope.key(*kind, name)).collect();
    if keys.len() > 1 {
        let problems = store.problems();
        keys.retain(|key| store.get(key).is_ok() || problems.iter().any(|p| p.key.as_ref() == Some(key)));
    }
    keys
}

/// Deletes all objects that the labels select. Words for several kinds are refused: who types `policies` may not
/// think of the global ones.
fn delete_types(types: &[Type], scope: &Scope, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    for one in types {
        if let [_, _, ..] = one.kinds[..] {
            let message =
                format!("{:?} stands for several types; name the one whose objects are to go", one.word);
            return Err(Error::Usage(message));
        }
    }
    let store = datastore::open(shared)?;
    let mut is_empty = true;
    for kind in types.iter().flat_map(|one| &one.kinds) {
        let namespace = scope.namespace.as_deref().filter(|_| kind.is_namespaced());
        for stored in store.list(*kind, namespace)?.items {
            if scope.labels.matches(&stored.resource.metadata().labels) {
                is_empty = false;
                // Somebody else may be quicker.
                delete(&store, &stored.key, None, true, console);
            }
        }
    }
    if is_empty {
        console.note("No resources found");
    }
    Ok(())
}

fn delete(
    store: &dyn Datastore,
    key: &Key,
    place: Option<&str>,
    ignore_not_found: bool,
    console: &mut Console,
) {
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    match store.delete(key, None) {
        Ok(()) => console.say(&format!("{} {:?} deleted\n", object::type_name(key.kind), key.name)),
        Err(StoreError::NotFound { .. }) if ignore_not_found => {}
        Err(StoreError::NotFound { key }) => console.error(&format!("{place}{}", object::not_found(&key))),
        Err(error) => console.error(&format!("{place}{}", chain(&error))),
    }
}
