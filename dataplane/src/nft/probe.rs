//! What this kernel's nf_tables has.

use tortie_api::net::IpVersion;
use tortie_rules::render::nft as lower;
use tortie_rules::ruleset::nft::{
    Chain, ChainKind, ConntrackKey, Expression, Hook, Register, Rule, Table, TableId,
};

use super::{CommitError, Socket, Transaction};

/// A table that never comes into force; Felix asks with one of the same name.
const TABLE: &str = "calico-flowtable-probe";

/// Why connections cannot be given marks here; `None` if they can. Nothing is left behind.
///
/// # Errors
/// When the kernel could not be asked.
pub fn lacks_connection_marks(version: IpVersion) -> Result<Option<String>, CommitError> {
    let id = TableId::new(lower::family(version), TABLE);
    let chain = Chain::plain("marks");
    let (key, direction, register) = (ConntrackKey::Mark, None, Register::FIRST);
    let expressions = vec![
        Expression::Conntrack { key, direction, to: register },
        Expression::SetConntrack { key, direction, from: register },
    ];
    let mut transaction = Transaction::new();
    transaction.add_table(&Table { id: id.clone(), comment: None });
    transaction.add_chain(&id, &chain);
    transaction.add_rule(&id, &chain.name, &Rule { expressions, comment: None });
    let failures = Socket::new().probe(&mut transaction)?;
    Ok(failures.first().map(|failure| failure.refusal.to_string()))
}

/// Why connections cannot skip the rules here; `None` if they can. Nothing is left behind.
///
/// # Errors
/// When the kernel could not be asked.
pub fn lacks_flowtables(version: IpVersion) -> Result<Option<String>, CommitError> {
    let id = TableId::new(lower::family(version), TABLE);
    let forward = Chain::at_hook("forward", ChainKind::Filter, Hook::Forward, 0);
    let flowtable = lower::flowtable();
    let offload = Expression::FlowOffload { flowtable: flowtable.name.clone() };
    let mut transaction = Transaction::new();
    transaction.add_table(&Table { id: id.clone(), comment: None });
    transaction.add_flowtable(&id, &flowtable);
    transaction.add_chain(&id, &forward);
    transaction.add_rule(&id, &forward.name, &Rule { expressions: vec![offload], comment: None });
    let failures = Socket::new().probe(&mut transaction)?;
    Ok(failures.first().map(|failure| failure.refusal.to_string()))
}
