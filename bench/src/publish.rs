//! `docs/benchmarks.md`: what people wrote at its head, then each group's figures as last published.

use std::{collections::BTreeMap, fs, path::Path};

use clap::ValueEnum;

use crate::{
    Result,
    args::Group,
    plot::Plot,
    report::{CELLS, Report, heading},
};

/// What follows this line is written here.
const MARK: &str = "<!-- Below: written by `tools/bench --publish`, group by group. -->\n";
/// Beside the page.
const PLOTS: &str = "benchmarks";

pub(crate) fn run(report: &Report, plots: &[Plot]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("benchmarks.md");
    let text = replace(&fs::read_to_string(&page)?, &report.sections(&format!("{PLOTS}/"))?)?;
    fs::create_dir_all(docs.join(PLOTS))?;
    for plot in plots {
        fs::write(docs.join(PLOTS).join(&plot.name), &plot.svg)?;
    }
    Ok(fs::write(page, text)?)
}

/// The page with these groups' figures in place of older ones. Those of other groups stay: a run of everything takes hours.
fn replace(page: &str, measured: &[(Group, String)]) -> Result<String> {
    let (head, published) =
        page.split_once(MARK).ok_or("docs/benchmarks.md has no line where the figures begin")?;
    let mut sections: BTreeMap<_, _> = headings(published)?.into_iter().collect();
    sections.extend(measured.iter().map(|(group, section)| (heading(*group), section.as_str())));
    let mut page = format!("{head}{MARK}\n{CELLS}");
    for group in Group::value_variants() {
        page.extend(sections.remove(&heading(*group)));
    }
    Ok(page)
}

/// The sections of what was published, each from the empty line before its heading, by that.
fn headings(published: &str) -> Result<Vec<(String, &str)>> {
    let starts = published.match_indices("\n\n## ").map(|(at, _)| at + 1);
    let mut starts: Vec<_> = starts.chain([published.len()]).collect();
    starts.dedup();
    let known: Vec<_> = Group::value_variants().iter().map(|group| heading(*group)).collect();
    let section = |ends: &[usize]| {
        let section = &published[ends[0]..ends[1]];
        let heading = section.lines().nth(1).unwrap_or_default().to_owned();
        match known.contains(&heading) {
            true => Ok((heading, section)),
            false => Err(format!("docs/benchmarks.md: no group has the heading {heading:?}").into()),
        }
    };
    starts.windows(2).map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_stays_until_it_is_measured_again() {
        let section = |group: Group, text: &str| (group, format!("\n{}\n\n{text}\n", heading(group)));
        let page = format!("# Head\n\n## Part\n\n{MARK}\nNone yet.\n");
        let page = replace(&page, &[section(Group::Write, "w1"), section(Group::Scan, "s1")]).unwrap();
        let (write, scan) = (section(Group::Write, "w1").1, section(Group::Scan, "s1").1);
        assert_eq!(
            page,
            format!("# Head\n\n## Part\n\n{MARK}\n{CELLS}{scan}{write}"),
            "in the order of groups"
        );
        let page = replace(&page, &[section(Group::Scan, "s2"), section(Group::Fork, "f")]).unwrap();
        let (fork, scan) = (section(Group::Fork, "f").1, section(Group::Scan, "s2").1);
        assert_eq!(page, format!("# Head\n\n## Part\n\n{MARK}\n{CELLS}{fork}{scan}{write}"));
        assert_eq!(replace(&page, &[]).unwrap(), page);
        assert!(replace("nothing", &[]).is_err());
        assert!(replace(&format!("{MARK}\n\n## unknown: group\n"), &[]).is_err());
    }
}
