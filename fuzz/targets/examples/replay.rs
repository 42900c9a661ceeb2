//! Runs one target on one file: `cargo run -p adit-fuzz-targets --example replay -- TARGET FILE`.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(file)) = (arguments.next(), arguments.next()) else {
        panic!("usage: replay TARGET FILE");
    };
    let targets = adit_fuzz_targets::TARGETS;
    let target = targets.iter().find(|(target, _)| *target == name).expect("a target of that name");
    let data = std::fs::read(file).expect("read the input");
    let begun = std::time::Instant::now();
    (target.1)(&data);
    println!("{:?}", begun.elapsed());
}
