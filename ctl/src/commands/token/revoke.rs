//! `aetherctl token revoke`: a token ends.

use proto::v1::RevokeTokenRequest;

use super::document;
use crate::context::Context;
use crate::failure::Failure;

/// Revoke a token, and all that were narrowed from it
///
/// Calls that are under way are not broken off.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token revoke tok_0123456789abcdef\n  aetherctl token revoke $(aetherctl --json token inspect < leaked | jq -r .id)"
)]
pub(super) struct Args {
    /// Its whole ID: `aetherctl token list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("token revoke")?;
    let reply = context.connect().await?.revoke_token(RevokeTokenRequest { id: args.id }).await?.into_inner();
    let revoked = reply.token.ok_or_else(|| Failure::protocol("no token"))?;
    if context.json {
        return context.document(&document(&revoked));
    }
    Ok(())
}
