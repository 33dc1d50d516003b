//! `aetherctl diff`: what differs, as lines, a patch, a histogram or JSON.

use std::io::Write;

use data_encoding::BASE64;
use proto::v1::DiffRequest;
use serde_json::{Value, json};

use crate::context::{Context, JsonArray};
use crate::diff::change::{Change, Side};
use crate::diff::patch::PatchWriter;
use crate::diff::stat::{Amount, StatTable, amount};
use crate::failure::Failure;
use crate::json;
use crate::quote::quoted;
use crate::text::{kind_name, width};

/// Show what differs between two sessions or snapshots
///
/// With A alone, what the session changed since its base. Lines are `A`, `M`, `D` or `T` (added, modified, deleted, type
/// changed), a tab and the path, or `R`, a tab, the old path, a tab and the new one, sorted by path. A new directory lists
/// itself and its contents; a renamed one is a single line. Paths with odd bytes are quoted as git does.
#[derive(clap::Args)]
#[command(
    after_help = "With -z a line is its fields, each ended by a NUL and none quoted: `A`, path; `R`, old path, new path.\n\n\
    With --patch, contents that are binary or over 1 MiB and what git has no words for are named in a line \
    `# not shown: PATH (REASON)`, which git apply skips.\n\n\
    Examples:\n  aetherctl diff work\n  aetherctl diff fix-1 work --stat\n  aetherctl diff work --patch | git apply\n  \
    aetherctl diff work -z | xargs -0 -n1"
)]
pub(crate) struct Args {
    /// A session or snapshot: what to look at
    a: String,
    /// A session or snapshot to compare it with [default: the base of A]
    b: Option<String>,
    /// Count changed lines, as git diff --stat does
    #[arg(long, conflicts_with = "patch")]
    stat: bool,
    /// Print a patch that git apply reads
    #[arg(long)]
    patch: bool,
    /// End fields with NUL and quote nothing
    #[arg(short = 'z', conflicts_with_all = ["stat", "patch", "json"])]
    nul: bool,
}

/// How a difference is printed.
enum Form {
    Lines,
    Nul,
    Patch(PatchWriter),
    Stat(StatTable),
    Json { array: JsonArray, patch: bool, stat: bool },
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if args.b.as_deref() == Some("") {
        return Err(Failure::No("B is empty: name a session or snapshot, or leave it out".to_string()));
    }
    let request = DiffRequest {
        a: args.a,
        b: args.b.unwrap_or_default(),
        patch: args.patch,
        stat: args.stat,
        expand_renames: args.patch,
    };
    let mut entries = context.connect().await?.diff(request).await?.into_inner();
    let mut form = match (context.json, args.patch, args.stat, args.nul) {
        (true, patch, stat, _) => Form::Json { array: JsonArray::start(context)?, patch, stat },
        (false, true, _, _) => Form::Patch(PatchWriter::default()),
        (false, false, true, _) => Form::Stat(StatTable::default()),
        (false, false, false, true) => Form::Nul,
        (false, false, false, false) => Form::Lines,
    };
    while let Some(entry) = entries.message().await? {
        print(context, &mut form, &Change::try_from(entry)?)?;
    }
    finish(context, form)
}

fn print(context: &mut Context, form: &mut Form, change: &Change) -> Result<(), Failure> {
    let letter = change.letter();
    match form {
        Form::Lines => match letter {
            'R' => context.line(&format!("R\t{}\t{}", quoted(&change.old_path), quoted(&change.path))),
            _ => context.line(&format!("{letter}\t{}", quoted(&change.path))),
        },
        Form::Nul => {
            write!(context.out, "{letter}\0")?;
            if letter == 'R' {
                context.out.write_all(&change.old_path)?;
                context.out.write_all(b"\0")?;
            }
            context.out.write_all(&change.path)?;
            Ok(context.out.write_all(b"\0")?)
        }
        Form::Patch(writer) => {
            let mut text = Vec::new();
            writer.write(change, &mut text);
            Ok(context.out.write_all(&text)?)
        }
        Form::Stat(table) => {
            table.push(change);
            Ok(())
        }
        Form::Json { array, patch, stat } => {
            let value = change_json(change, *patch, *stat);
            array.push(context, &value)
        }
    }
}

fn finish(context: &mut Context, form: Form) -> Result<(), Failure> {
    match form {
        Form::Lines | Form::Nul => Ok(()),
        Form::Patch(writer) => {
            let mut text = Vec::new();
            writer.finish(&mut text);
            Ok(context.out.write_all(&text)?)
        }
        Form::Stat(table) => Ok(context.out.write_all(table.render(width()).as_bytes())?),
        Form::Json { array, .. } => array.finish(context),
    }
}

fn change_json(change: &Change, patch: bool, stat: bool) -> Value {
    let mut object = json!({
        "status": change.letter().to_string(),
        "old": change.old_side().map(side_json),
        "new": change.new_side().map(side_json),
        "same_content": change.same_content,
    });
    json::put_bytes(&mut object, "path", &change.path);
    if change.old_path != change.path {
        json::put_bytes(&mut object, "old_path", &change.old_path);
    }
    if stat {
        match amount(change) {
            Amount::Lines { added, deleted } => {
                object["added"] = json!(added);
                object["deleted"] = json!(deleted);
            }
            Amount::Bytes { .. } => object["binary"] = json!(true),
        }
    }
    if patch {
        let mut text = Vec::new();
        let mut writer = PatchWriter::default();
        writer.write(change, &mut text);
        // Not `put_bytes`: a quoted patch is of no use to anybody.
        match String::from_utf8(text) {
            Ok(text) => object["patch"] = json!(text),
            Err(e) => object["patch_base64"] = json!(BASE64.encode(e.as_bytes())),
        }
    }
    object
}

fn side_json(side: &Side) -> Value {
    json!({ "kind": kind_name(side.kind), "mode": json::mode(side.mode), "size": side.size })
}
