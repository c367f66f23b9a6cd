//! `tortiectl get`.

use serde_json::{Value, json};
use tortie_api::kind::{Key, Kind};
use tortie_datastore::{Datastore, Error as StoreError, Problem, Stored, to_yaml};

use crate::cli::{Format, GetArgs, Shared};
use crate::columns::{self, Row};
use crate::console::Console;
use crate::table::Table;
use crate::target::{Scope, Targets, Type};
use crate::{Error, age, datastore, input, object};

/// What was found.
#[derive(Default)]
struct Found {
    /// In the order in which they are shown.
    objects: Vec<Stored>,
    /// The kinds that were asked for.
    kinds: Vec<Kind>,
    /// Whether one object was asked for, by its name.
    is_single: bool,
    /// Whether names are to tell the kind.
    is_mixed: bool,
}

/// Runs the command.
pub(crate) fn run(args: &GetArgs, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    let selection = &args.selection;
    let (mut found, namespace) = if selection.words.is_empty() {
        let store = datastore::open(shared)?;
        let documents = input::read(&selection.input, shared.namespace.as_deref(), console);
        let keys: Vec<Key> = documents.into_iter().map(|document| document.key).collect();
        (find_keys(&store, &keys, args, console)?, None)
    } else {
        let targets = Targets::parse(&selection.words)?;
        let scope = Scope::new(selection, shared, &targets)?;
        let store = datastore::open(shared)?;
        let found = match targets {
            Targets::Types(types) => find_types(&store, &types, &scope)?,
            Targets::Names(names) => find_names(&store, &names, &scope, args, console)?,
        };
        warn(&store.problems(), &found.kinds, console);
        (found, scope.namespace)
    };
    found.is_mixed |= found.objects.windows(2).any(|pair| pair[0].key.kind != pair[1].key.kind);
    show(&found, namespace.as_deref(), args, console)
}

fn find_types(store: &dyn Datastore, types: &[Type], scope: &Scope) -> Result<Found, Error> {
    let mut found = Found { is_mixed: types.len() > 1, ..Found::default() };
    for kind in types.iter().flat_map(|one| &one.kinds) {
        if found.kinds.contains(kind) {
            continue;
        }
        found.kinds.push(*kind);
        let list = store.list(*kind, scope.namespace.as_deref().filter(|_| kind.is_namespaced()))?;
        let is_wanted = |stored: &Stored| scope.labels.matches(&stored.resource.metadata().labels);
        found.objects.extend(list.items.into_iter().filter(is_wanted));
    }
    Ok(found)
}

fn find_names(
    store: &dyn Datastore,
    names: &[(Type, String)],
    scope: &Scope,
    args: &GetArgs,
    console: &mut Console,
) -> Result<Found, Error> {
    if let [(one, name)] = names
        && let [kind] = one.kinds[..]
    {
        return find_keys(store, &[scope.key(kind, name)], args, console);
    }
    let mut found = Found::default();
    for (one, name) in names {
        let before = found.objects.len();
        for kind in &one.kinds {
            match store.get(&scope.key(*kind, name)) {
                Ok(stored) => found.objects.push(stored),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if !found.kinds.contains(kind) {
                found.kinds.push(*kind);
            }
        }
        if found.objects.len() == before && !args.ignore_not_found {
            console.error(&match one.kinds[..] {
                [kind] => object::not_found(&scope.key(kind, name)),
                _ => format!("{}/{name} not found", one.word),
            });
        }
    }
    found.is_single = names.len() == 1 && found.objects.len() == 1;
    found.objects.sort_by_key(|stored| found.kinds.iter().position(|kind| *kind == stored.key.kind));
    Ok(found)
}

fn find_keys(
    store: &dyn Datastore,
    keys: &[Key],
    args: &GetArgs,
    console: &mut Console,
) -> Result<Found, Error> {
    let mut found = Found { is_single: keys.len() == 1, ..Found::default() };
    for key in keys {
        match store.get(key) {
            Ok(stored) => found.objects.push(stored),
            Err(StoreError::NotFound { .. }) if args.ignore_not_found => {}
            Err(StoreError::NotFound { key }) => console.error(&object::not_found(&key)),
            Err(error) => return Err(error.into()),
        }
        if !found.kinds.contains(&key.kind) {
            found.kinds.push(key.kind);
        }
    }
    found.objects.sort_by_key(|stored| found.kinds.iter().position(|kind| *kind == stored.key.kind));
    Ok(found)
}

/// Objects whose documents cannot be used would else be missing without a word.
fn warn(problems: &[Problem], kinds: &[Kind], console: &mut Console) {
    for problem in problems {
        if problem.key.as_ref().is_none_or(|key| kinds.contains(&key.kind)) {
            console.note(&format!("warning: {problem}"));
        }
    }
}

fn show(found: &Found, namespace: Option<&str>, args: &GetArgs, console: &mut Console) -> Result<(), Error> {
    let has_errors = console.errors() > 0;
    match args.output {
        Some(Format::Yaml) => show_whole(found, has_errors, console, |value| Ok(to_yaml(value))),
        Some(Format::Json) => show_whole(found, has_errors, console, crate::output::to_json),
        Some(Format::Name) => {
            let names = found.objects.iter().map(|stored| object::full_name(&stored.key) + "\n");
            console.say(&names.collect::<String>());
            Ok(())
        }
        Some(Format::Wide) | None => {
            if found.objects.is_empty() {
                if !has_errors && !args.ignore_not_found {
                    console.note(&nothing_found(&found.kinds, namespace));
                }
                return Ok(());
            }
            console.say(&tables(found, args));
            Ok(())
        }
    }
}

fn nothing_found(kinds: &[Kind], namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if kinds.iter().all(|kind| kind.is_namespaced()) => {
            format!("No resources found in {namespace} namespace.")
        }
        _ => "No resources found".to_owned(),
    }
}

/// One object as it is; several, or those of a type, as a list.
fn show_whole(
    found: &Found,
    has_errors: bool,
    console: &mut Console,
    text_of: impl Fn(&Value) -> Result<String, Error>,
) -> Result<(), Error> {
    let value = match &found.objects[..] {
        [stored] if found.is_single => object::value(stored),
        [] if has_errors || found.is_single => return Ok(()),
        objects => {
            let items: Vec<Value> = objects.iter().map(object::value).collect();
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
        }
    };
    console.say(&text_of(&value)?);
    Ok(())
}

/// One table for each kind. Where there are several, names tell the kind.
fn tables(found: &Found, args: &GetArgs) -> String {
    let now_secs = age::now_secs();
    let tables = found.objects.chunk_by(|a, b| a.key.kind == b.key.kind).map(|objects| {
        let kind = objects[0].key.kind;
        let columns = columns::of(kind, args.output == Some(Format::Wide));
        let has_namespace = args.selection.all_namespaces && kind.is_namespaced();
        let mut table = Table::default();
        if !args.no_headers {
            let titles = columns.iter().map(|column| column.title.to_owned());
            table.push(
                has_namespace
                    .then(|| "NAMESPACE".to_owned())
                    .into_iter()
                    .chain(["NAME".to_owned()])
                    .chain(titles),
            );
        }
        for stored in objects {
            let row = Row::new(stored, now_secs);
            let namespace = stored.key.namespace.clone().filter(|_| has_namespace);
            let name = if found.is_mixed { object::full_name(&stored.key) } else { stored.key.name.clone() };
            table.push(
                namespace.into_iter().chain([name]).chain(columns.iter().map(|column| (column.cell)(&row))),
            );
        }
        table.to_string()
    });
    tables.collect::<Vec<_>>().join("\n")
}
