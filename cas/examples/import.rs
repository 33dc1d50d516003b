//! Imports a directory into a state directory and prints how long that took: `import <source> <state>`.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    env, error::Error, path::Path, process::ExitCode, sync::Arc, sync::atomic::AtomicBool, time::Instant,
};

use cas::{Store, Time, import::import, sys::SysDisk};

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let [source, state] = &args[..] else {
        eprintln!("usage: import <source> <state>");
        return ExitCode::from(2);
    };
    match run(Path::new(source), Path::new(state)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(source: &Path, state: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(state)?;
    let store = Store::open(Arc::new(SysDisk::open(state)?))?;
    let start = Instant::now();
    let imported = import(&store, source, &|_| (), &AtomicBool::new(false))?;
    let took = start.elapsed();
    store.keep(imported.id, None, Time::default())?;
    println!("{}", imported.id);
    println!("{} names, {} bytes, {:?}", imported.files, imported.bytes, imported.written);
    println!("{:.3} s", took.as_secs_f64());
    Ok(())
}
