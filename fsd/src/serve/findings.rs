//! What a check found as messages: one for each thing that is wrong, the damage itself before what follows from it.

use std::path::Path;

use proto::v1::{FsckFinding, FsckKind};

use crate::session::Checked;

/// Everything that is wrong, a message each. Files are named relative to the state.
pub fn findings(checked: &Checked, state_dir: &Path) -> Vec<FsckFinding> {
    let finding = |kind: FsckKind, file: &Path, offset, detail: String| FsckFinding {
        kind: kind.into(),
        object: String::new(),
        file: relative(file, state_dir),
        offset,
        detail,
        repaired: false,
    };
    let mut findings = Vec::new();
    for flaw in &checked.flaws {
        let detail = format!("{}; {}", flaw.reason, users(&flaw.users));
        let told = finding(FsckKind::Corrupt, &flaw.path, flaw.offset, detail);
        findings.push(FsckFinding { repaired: flaw.repaired, ..told });
    }
    let report = &checked.store;
    for damage in &report.damage {
        let whose = match damage.is_elsewhere {
            true => "the remote store has it, and it is read from there".to_owned(),
            false => users(&damage.paths),
        };
        let detail = format!("{}; {whose}", damage.reason);
        let base = match &damage.place {
            Some((pack, offset)) => finding(FsckKind::Corrupt, pack, *offset, detail),
            None => finding(FsckKind::Missing, Path::new(""), 0, detail),
        };
        let repaired = damage.is_elsewhere && report.repaired;
        findings.push(FsckFinding { object: damage.digest.to_string(), repaired, ..base });
    }
    // Of what was set aside nothing is left to mend: what was intact in it has another place.
    let aside = |pack: &Path| {
        if report.left.iter().any(|left| left == pack) {
            return "; more of it broke while it was copied, so it stays: run `aetherctl fsck --repair` again".to_owned();
        }
        let lost = report.set_aside.iter().find(|lost| lost.with_extension("") == pack);
        lost.map_or_else(String::new, |lost| format!("; set aside as {}", relative(lost, state_dir)))
    };
    for pack in &report.damaged_headers {
        let detail =
            format!("the header of the pack is damaged; its objects are not affected{}", aside(pack));
        let told = finding(FsckKind::Corrupt, pack, 0, detail);
        findings.push(FsckFinding { repaired: report.is_mended(pack), ..told });
    }
    for (pack, offset, bytes) in &report.unreadable_ranges {
        let detail = format!("{bytes} bytes hold no record that can be read{}", aside(pack));
        let told = finding(FsckKind::Corrupt, pack, *offset, detail);
        findings.push(FsckFinding { repaired: report.is_mended(pack), ..told });
    }
    if report.index_errors > 0 {
        let advice = if report.repaired { "it was made anew" } else { "run `aetherctl fsck --repair`" };
        let detail =
            format!("{} entries of the index disagree with the packs; {advice}", report.index_errors);
        let index = finding(FsckKind::Index, Path::new("store/index.redb"), 0, detail);
        findings.push(FsckFinding { repaired: report.repaired, ..index });
    }
    findings
}

fn relative(file: &Path, state_dir: &Path) -> String {
    file.strip_prefix(state_dir).unwrap_or(file).display().to_string()
}

fn users(users: &[String]) -> String {
    match users {
        [] => "nothing that is kept uses it".to_owned(),
        users => format!("used by {}", users.join(", ")),
    }
}
