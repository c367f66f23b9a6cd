//! `tortiectl explain`: whether traffic passes, and why.
//!
//! Nothing is sent: the answer follows from policies, and is what the agents make the kernel do.

use serde_json::Value;
use tortie_api::net::IpVersion;
use tortie_rules::eval::{Explanation, Verdict};

use crate::cli::{ExplainArgs, Files, Shared};
use crate::console::Console;
use crate::world::World;
use crate::{Error, output, target};

use self::party::Resolver;
use self::traffic::Traffic;

mod near;
mod party;
mod traffic;

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    let traffic = Traffic::parse(&args.traffic, args.source_port).map_err(Error::Usage)?;
    let files = Files { files: args.files.clone(), recursive: args.recursive };
    let Some(world) = World::read(&files, shared, console)? else { return Ok(()) };
    let resolver = Resolver::new(&world, target::namespace(shared));
    let (source, destination) = match (resolver.party(&args.source), resolver.party(&args.destination)) {
        (Ok(source), Ok(destination)) => (source, destination),
        (source, destination) => {
            source.err().into_iter().chain(destination.err()).for_each(|error| console.error(&error));
            return Ok(());
        }
    };
    let asked = match (args.ipv4, args.ipv6) {
        (true, _) => Some(IpVersion::V4),
        (_, true) => Some(IpVersion::V6),
        _ => traffic.version(),
    };
    let versions: Vec<IpVersion> = IpVersion::BOTH
        .into_iter()
        .filter(|v| asked.is_none_or(|asked| asked == *v))
        .filter(|v| source.over(*v).is_some() && destination.over(*v).is_some())
        .collect();
    let Some(version) = versions.first() else {
        console.error(&party::no_common_version(&source, &destination, asked));
        return Ok(());
    };
    let cluster = world.cluster(console);
    let explain = |version: IpVersion| {
        let (source, destination) = (source.over(version)?, destination.over(version)?);
        Some(cluster.explain(&traffic.flow(source, destination)))
    };
    let Some(answer) = explain(*version) else { return Ok(()) };
    // Types of ICMP mean something else in the other version.
    let other = versions.get(1).filter(|_| !traffic.is_of_one_version()).and_then(|v| explain(*v));
    show(&answer, other.as_ref(), args, console)
}

/// Shows the answer for one IP version, and the verdict for the other one if that was asked for as well.
fn show(
    answer: &Explanation,
    ipv6: Option<&Explanation>,
    args: &ExplainArgs,
    console: &mut Console,
) -> Result<(), Error> {
    if let Some(format) = args.output {
        let mut value = serde_json::to_value(answer)?;
        if let (Some(ipv6), Value::Object(fields)) = (ipv6, &mut value) {
            fields.insert("ipv6Verdict".to_owned(), serde_json::to_value(ipv6.verdict)?);
        }
        return output::say(&value, format, console);
    }
    console.say(&format!("{answer}\n"));
    if let Some(ipv6) = ipv6.filter(|ipv6| ipv6.verdict != answer.verdict) {
        let verdict = match ipv6.verdict {
            Verdict::Allow => "is allowed",
            Verdict::Deny => "is denied",
        };
        console.say(&format!("Over IPv6 it {verdict}: ask with -6 for the reason.\n"));
    }
    Ok(())
}
