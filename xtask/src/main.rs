//! Project chores. `cargo xtask` lists them.
#![forbid(unsafe_code)]

mod demo;
mod fuzz;
mod layers;
mod run;
mod witness;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  demo        make a sample datastore, list it, copy a machine out of it
  test        fetch the witnesses, then run every test and check
  ready       what to run before sending: format, lints, layers, tests
  layers      prove that dependencies point downwards only
  witnesses   fetch the public test data and the independent readers
  bench       measure adit beside its peers in one run: vmfs (usual), convert, guest, nbd,
              fuse (mounts; as root), nbd-clients (what libnbd and a booting PC make of our server), endure (servers
              killed and told things under load), or
              views FOLDER: every image of a manifest against its hash
  fuzz [SECONDS] [TARGET]
              run the fuzz targets, SECONDS each
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => test(),
        ["ready"] => ready(),
        ["layers"] => layers::check().map(|count| println!("{count} dependencies, all downwards")),
        ["witnesses"] => witness::prepare().map(|_| ()),
        ["bench", rest @ ..] => bench(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        [] | ["help" | "--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown chore {other:?}\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    let count = layers::check()?;
    println!("layers: {count} dependencies, all downwards");
    witness::prepare()?;
    run::cargo(&["test", "--workspace", "--no-fail-fast"])
}

fn ready() -> Result<(), String> {
    run::cargo(&["fmt", "--all", "--check"])?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    test()
}

fn bench(rest: &[&str]) -> Result<(), String> {
    let (name, rest) = match rest {
        ["convert", rest @ ..] => ("benches/convert.py", rest),
        ["diffwalk", rest @ ..] => ("benches/diffwalk.py", rest),
        ["crash", rest @ ..] => ("benches/crash.py", rest),
        ["views", rest @ ..] => ("benches/views.py", rest),
        ["guest", rest @ ..] => ("benches/guest.py", rest),
        ["fuse", rest @ ..] => ("benches/serve_fuse.py", rest),
        ["nbd", rest @ ..] => ("benches/serve_nbd.py", rest),
        ["nbd-clients", rest @ ..] => ("benches/nbd_clients.py", rest),
        ["endure", rest @ ..] => ("benches/endure.py", rest),
        ["vmfs", rest @ ..] => ("benches/vmfs.py", rest),
        rest => ("benches/vmfs.py", rest),
    };
    run::cargo(&["build", "--release", "--package", "adit"])?;
    let python = witness::prepare()?.python;
    let script = run::root().join(name);
    let script = script.to_str().ok_or("the project's path is no UTF-8")?;
    let python = python.to_str().ok_or("the project's path is no UTF-8")?;
    run::command(python, &[&[script], rest].concat())
}
