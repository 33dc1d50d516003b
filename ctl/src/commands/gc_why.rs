//! `aetherctl gc --why`: who needs something of the remote store, if anybody does.

use proto::v1::GcWhyRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;

pub(super) async fn run(id: String, context: &mut Context) -> Result<(), Failure> {
    let request = GcWhyRequest { id: id.clone() };
    let mut lines = context.connect().await?.gc_why(request).await?.into_inner();
    let progress = Progress::start("looking");
    let mut told = Vec::new();
    while let Some(line) = lines.message().await? {
        told.push(line.text);
    }
    drop(progress);
    if context.json {
        return context.document(&json!({ "id": id, "why": told }));
    }
    told.iter().try_for_each(|line| context.line(line))
}
