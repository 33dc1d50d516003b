//! `docs/benchmarks.md`: what people wrote at its head, then the figures of the last published run.

use std::{fs, path::Path};

use crate::{Result, plot::Plot, report::Report};

/// All after this line is replaced.
const MARK: &str = "<!-- Below: written by `tools/bench --publish`. -->\n";
/// Beside the page.
const PLOTS: &str = "benchmarks";

pub(crate) fn run(report: &Report, plots: &[Plot]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("benchmarks.md");
    let text = replace(&fs::read_to_string(&page)?, &report.markdown(&format!("{PLOTS}/"))?)?;
    fs::create_dir_all(docs.join(PLOTS))?;
    for plot in plots {
        fs::write(docs.join(PLOTS).join(&plot.name), &plot.svg)?;
    }
    Ok(fs::write(page, text)?)
}

fn replace(page: &str, report: &str) -> Result<String> {
    let (head, _) = page.split_once(MARK).ok_or("docs/benchmarks.md has no line where the figures begin")?;
    Ok(format!("{head}{MARK}\n{report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_stays() {
        let page = format!("# Head\n{MARK}old");
        assert_eq!(replace(&page, "new\n").unwrap(), format!("# Head\n{MARK}\nnew\n"));
        assert!(replace("nothing", "new").is_err());
    }
}
