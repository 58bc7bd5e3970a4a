//! What a person typed, made into a definition, or refused with the field to mend.

use homehost_api::{ApiError, ErrorKind, NewServer};
use homehost_hosting::{Query, ServerDefinition, parse_exec, parse_port};
use homehost_protocol::record::listing::flags;
use homehost_protocol::{ServerId, ServerNonce};

use crate::identity::keys::SignerState;
use crate::wire::announce::check_listing;

/// Makes a definition with a new id.
///
/// # Errors
/// A usage error that names the field and what would be right.
pub(super) fn definition(
    new: &NewServer,
    keys: &SignerState,
) -> Result<ServerDefinition, ApiError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
    let nonce = ServerNonce(nonce);
    let id = ServerId::derive(&keys.chain.root(), &nonce);
    let mut definition = ServerDefinition::new(id, nonce, new.name.trim());
    definition.game = new.game.clone();
    definition.exec = parse_exec(&new.exec).map_err(|error| usage("--exec", error))?;
    for (name, request) in &new.ports {
        let (name, request) =
            parse_port(&format!("{name}={request}")).map_err(|error| usage("--port", error))?;
        definition.ports.insert(name, request);
    }
    definition.query = query(&new.query, &definition)?;
    definition.stop_command = new.stop_command.clone();
    definition.description = new.description.clone();
    definition.tags = new.tags.clone();
    definition.tags.sort();
    definition.tags.dedup();
    definition.region = new.region.clone();
    definition.language = new.language.clone();
    definition.game_version = new.game_version.clone();
    definition.slots = new.slots;
    definition.visibility = super::views::visibility_of(new.visibility);
    definition.flags = new.password.then_some(flags::PASSWORD);
    check_listing(&definition, &keys.measure())
        .map_err(|error| ApiError::new(ErrorKind::Usage, error.to_string()))?;
    Ok(definition)
}

fn query(text: &str, definition: &ServerDefinition) -> Result<Query, ApiError> {
    let (kind, port) = match text.split_once(':') {
        Some((kind, port)) => (kind, Some(port)),
        None => (text, None),
    };
    let kind = kind.parse().map_err(|error| usage("--query", error))?;
    if let Some(port) = port.filter(|port| !definition.ports.contains_key(*port)) {
        let text = format!("it asks the port {port:?}, which has no --port {port}=…");
        return Err(usage("--query", text));
    }
    Ok(Query { kind, port: port.map(str::to_owned) })
}

fn usage(option: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::Usage, format!("{option}: {error}"))
}
