//! Serves a host file until it is killed: `serve FILE SOCKET`. For measurements.

use adit_nbd::{Export, Server, ServerOptions};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(socket)) = (args.next(), args.next()) else {
        return Err("serve FILE SOCKET".into());
    };
    let disk = adit_io::open(Path::new(&file), &adit_io::ReadPolicy::default())?;
    let export = Export::read_only("", disk).described(file);
    let counters = export.counters();
    let server = Server::new(vec![export], ServerOptions::default())?;
    server.serve_unix(Path::new(&socket))?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    server.stop();
    for (name, value, _) in counters.all() {
        println!("{name} {value}");
    }
    Ok(())
}
