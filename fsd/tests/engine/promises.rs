//! `docs/semantics.md` and the tests hold each other: a sentence that promises something names the tests that show it, and
//! every test that is named exists and runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The heading of what is said without a test: limits and absences, for which there is nothing to be shown.
const EXEMPT: &str = "### Not promised";
/// A promise is one sentence; a bound or an exception may need a second.
const SENTENCES_MAX: usize = 2;
/// What runs scripts of ci/ regularly, or tells people when to run them.
const RUNNERS: [&str; 4] = ["tools/test", "ci/run", "docs/operations.md", "docs/ARCHITECTURE.md"];

/// A promise: the line of the document that it begins on, its text, and the names behind it.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    line: usize,
    text: String,
    names: Vec<String>,
}

/// What the document promises, and what is wrong with how it says so.
fn parse(document: &str) -> (Vec<Promise>, Vec<String>) {
    let (mut promises, mut wrong) = (Vec::<Promise>::new(), Vec::new());
    // What stands before the first section introduces; what stands below EXEMPT promises nothing.
    let (mut in_section, mut exempt, mut in_item) = (false, false, false);
    for (line, text) in document.lines().enumerate().map(|(at, text)| (at + 1, text)) {
        if text.starts_with('#') {
            (in_section, exempt, in_item) = (!text.starts_with("# "), text == EXEMPT, false);
        } else if text.is_empty() {
            in_item = false;
        } else if !in_section || exempt {
        } else if let Some(first) = text.strip_prefix("- ") {
            promises.push(Promise { line, text: first.into(), names: Vec::new() });
            in_item = true;
        } else if let (true, Some(more), Some(last)) = (in_item, text.strip_prefix("  "), promises.last_mut())
        {
            last.text = format!("{} {more}", last.text);
        } else {
            wrong.push(format!("line {line} is in no item, and so has no test: {text}"));
        }
    }
    for promise in &mut promises {
        wrong.extend(split(promise).map(|why| format!("line {}: {why}: {}", promise.line, promise.text)));
    }
    (promises, wrong)
}

/// Takes the names off the end of the text. Returns what is wrong with the rest.
fn split(promise: &mut Promise) -> Option<&'static str> {
    let (text, names) = match promise.text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
        Some((text, names)) => (text.to_owned(), names.split(", ").map(str::to_owned).collect()),
        None => return Some("no test stands behind it"),
    };
    (promise.text, promise.names) = (text, names);
    if promise.names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        return Some("its brackets do not hold names of tests");
    }
    if !promise.text.ends_with('.') {
        return Some("it does not end with a full stop");
    }
    let ends = promise.text.matches(". ").count() + 1;
    (ends > SENTENCES_MAX).then_some("it says too much for one promise")
}

/// A test: where it is, and whether it runs by itself.
#[derive(Debug)]
struct Test {
    file: PathBuf,
    ignored: bool,
}

/// What the sources have.
#[derive(Debug, Default)]
struct Tests {
    /// By name: all tests of that name.
    named: BTreeMap<String, Vec<Test>>,
    /// Every module that some file declares: a file that none does is not compiled.
    modules: BTreeSet<String>,
}

/// Whether the file is part of a program: its root, or a module that is declared.
fn is_compiled(file: &Path, modules: &BTreeSet<String>) -> bool {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (stem, dir) = (name(file), name(file.parent().unwrap()));
    match stem.as_str() {
        "lib" | "main" => true,
        "mod" => modules.contains(&dir),
        _ => dir == "tests" || modules.contains(&stem),
    }
}

/// Adds the tests of a source file: functions behind `#[test]`, whatever other attributes stand between or before the two.
fn add_tests(tests: &mut Tests, file: &Path, source: &str) {
    let (mut is_test, mut ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if let Some((_, module)) = line.strip_suffix(';').and_then(|line| line.split_once("mod ")) {
            tests.modules.insert(module.into());
        }
        if line.starts_with("#[") || line.starts_with("//") {
            is_test |= line == "#[test]";
            ignored |= line.starts_with("#[ignore");
            continue;
        }
        if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            && is_test
        {
            tests.named.entry(name.into()).or_default().push(Test { file: file.into(), ignored });
        }
        (is_test, ignored) = (false, false);
    }
}

/// What is wrong with a name: no such test or script, one that does not run, or more than one.
fn check(name: &str, tests: &Tests, root: &Path) -> Option<String> {
    if name.contains('/') {
        return check_script(name, root);
    }
    match tests.named.get(name).map(Vec::as_slice) {
        None => Some(format!("there is no test {name}")),
        Some([test]) if test.ignored => {
            Some(format!("{name} in {} is ignored, and shows nothing", test.file.display()))
        }
        Some([test]) if !is_compiled(&test.file, &tests.modules) => {
            Some(format!("{name} is in {}, which no module declares", test.file.display()))
        }
        Some([_]) => None,
        Some(several) => Some(format!("{} tests are named {name}: {several:?}", several.len())),
    }
}

fn check_script(name: &str, root: &Path) -> Option<String> {
    let Ok(meta) = fs::metadata(root.join(name)) else { return Some(format!("there is no script {name}")) };
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Some(format!("{name} cannot be run"));
    }
    let runs = |runner: &&str| fs::read_to_string(root.join(runner)).is_ok_and(|text| text.contains(name));
    (!RUNNERS.iter().any(runs)).then(|| format!("nothing runs {name}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every test of the workspace.
fn all_tests(root: &Path) -> Tests {
    let mut tests = Tests::default();
    let mut dirs: Vec<PathBuf> =
        ["cas", "fsd", "ctl", "proto", "bench"].map(|member| root.join(member)).into();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                add_tests(&mut tests, path.strip_prefix(root).unwrap(), &fs::read_to_string(&path).unwrap());
            }
        }
    }
    tests
}

#[test]
fn every_promise_names_the_tests_that_show_it() {
    let root = root();
    let tests = all_tests(&root);
    let (promises, mut wrong) = parse(&fs::read_to_string(root.join("docs/semantics.md")).unwrap());
    assert!(
        promises.len() > 50,
        "only {} promises were found: the document has another form",
        promises.len()
    );
    for promise in &promises {
        let bad = promise.names.iter().filter_map(|name| check(name, &tests, &root));
        wrong.extend(bad.map(|why| format!("line {}: {why}", promise.line)));
    }
    assert!(wrong.is_empty(), "docs/semantics.md:\n{}", wrong.join("\n"));
}

/// A checker that never fails checks nothing.
#[test]
fn promises_without_a_test_are_found() {
    let document = "# Title\n\nIntroduces.\n\n## Section\n\n- One. [good]\n- Two goes\n  on. [good, sleeping,\n  missing]\n\
                    - Three.\n- A. B. C. [good]\n- Four [good]\nloose\n\n### Not promised\n\n- Five.\n\n## Next\n\n- Six. [twice, ci/none]\n";
    let (promises, wrong) = parse(document);
    let names: Vec<_> = promises.iter().flat_map(|promise| &promise.names).map(String::as_str).collect();
    assert_eq!(names, ["good", "good", "sleeping", "missing", "good", "good", "twice", "ci/none"]);
    assert_eq!((promises[1].line, promises[1].text.as_str()), (8, "Two goes on."));
    let expected = [
        "line 14 is in no item, and so has no test: loose",
        "line 11: no test stands behind it: Three.",
        "line 12: it says too much for one promise: A. B. C.",
        "line 13: it does not end with a full stop: Four",
    ];
    assert_eq!(wrong, expected);

    let source = "#[test]\nfn good() {}\nfn helper() {}\nproptest! {\n    #[test]\n    #[ignore = \"slow\"]\n    fn sleeping(a in 0..3) {}\n\
                  \n// #[test]\nfn missing() {}\n#[test]\nfn twice() {}\n#[test]\nfn twice() {}\n";
    let mut tests = Tests::default();
    add_tests(&mut tests, Path::new("fsd/tests/a.rs"), source);
    let why: Vec<_> = names.iter().filter_map(|name| check(name, &tests, &root())).collect();
    assert_eq!(why.len(), 4, "{why:?}");
    assert_eq!(why[0], "sleeping in fsd/tests/a.rs is ignored, and shows nothing");
    assert_eq!(why[1], "there is no test missing");
    assert!(why[2].starts_with("2 tests are named twice"));
    assert_eq!(why[3], "there is no script ci/none");
    add_tests(&mut tests, Path::new("fsd/tests/mount/stray.rs"), "#[test]\nfn stray() {}\nmod here;\n");
    add_tests(&mut tests, Path::new("fsd/tests/mount/here.rs"), "#[test]\nfn here() {}\n");
    assert!(check("stray", &tests, &root()).unwrap().ends_with("stray.rs, which no module declares"));
    assert_eq!(check("here", &tests, &root()), None);
    assert_eq!(check("ci/lib.sh", &tests, &root()).as_deref(), Some("ci/lib.sh cannot be run"));
    assert_eq!(check("ci/suites", &tests, &root()), None);
}
