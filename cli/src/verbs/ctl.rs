//! `adit ctl`: what a server of ours is told while it serves.

use crate::args::{Ctl, CtlCommand, Which};
use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::Result;
use adit_nbd::control;
use serde_json::{Map, Value, json};

/// Asks, and shows the answer.
pub fn run(session: &Session, ctl: &Ctl) -> u8 {
    let request = request(&ctl.command);
    let action =
        format!("{} through {}", request["cmd"].as_str().unwrap_or(""), ctl.socket.display());
    match ask(ctl, &request) {
        Ok(answer) => {
            let mut out = Out::new();
            if session.common.json {
                let mut document = Map::new();
                document.insert("schema".into(), "adit.ctl/1".into());
                if let Value::Object(answer) = answer {
                    document.extend(answer.into_iter().filter(|(name, _)| name != "ok"));
                }
                out.json(&Value::Object(document));
            } else {
                show(&mut out, &answer);
            }
            out.finish();
            exit::GOOD
        }
        Err(error) => session.fail(&action, &error),
    }
}

fn ask(ctl: &Ctl, request: &Value) -> Result<Value> {
    control::ask(&ctl.socket, request)
}

/// What is asked, as it goes over the socket.
fn request(command: &CtlCommand) -> Value {
    let plain = |cmd: &str, which: &Which| json!({ "cmd": cmd, "export": which.export });
    let with = |cmd: &str, which: &Which, more: Value| {
        let mut request = plain(cmd, which);
        if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
            request.extend(more);
        }
        request
    };
    match command {
        CtlCommand::List => json!({ "cmd": "list" }),
        CtlCommand::Stats(which) => plain("stats", which),
        CtlCommand::Pause(which) => plain("pause", which),
        CtlCommand::Unpause(which) => plain("unpause", which),
        CtlCommand::Snapshot { which, name } => with("snapshot", which, json!({ "name": name })),
        CtlCommand::Commit { which, into_original, wait } => {
            with("commit", which, json!({ "into_original": into_original, "wait": wait }))
        }
        CtlCommand::Flatten { which, wait } => with("flatten", which, json!({ "wait": wait })),
        CtlCommand::Swap { which, file } => {
            // The server has a working folder of its own.
            let whole = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            with("swap", which, json!({ "file": whole.to_string_lossy() }))
        }
        CtlCommand::Resize { which, size } => with("resize", which, json!({ "size_bytes": size })),
        CtlCommand::Ratelimit { which, bytes, ops } => {
            with("ratelimit", which, json!({ "bytes": bytes, "ops": ops }))
        }
        CtlCommand::Jobs(which) => plain("jobs", which),
        CtlCommand::Cancel { which, job } => with("cancel", which, json!({ "job": job })),
        CtlCommand::Close(which) => plain("close", which),
    }
}

/// Names and values, a line each; lists indented below their name.
fn show(out: &mut Out, answer: &Value) {
    if let Some(jobs) = answer["jobs"].as_array() {
        return show_jobs(out, jobs);
    }
    let Value::Object(fields) = answer else { return };
    for (name, value) in fields.iter().filter(|(name, _)| *name != "ok") {
        match value {
            Value::Array(list) => list.iter().for_each(|item| show_item(out, item)),
            _ => out.line(format!("{:<18} {}", name.replace('_', " "), plain(name, value))),
        }
    }
}

fn show_item(out: &mut Out, item: &Value) {
    let Value::Object(fields) = item else { return out.line(plain("", item)) };
    let name = item["export"].as_str().unwrap_or_default();
    out.line(format!("export {name:?}"));
    for (name, value) in fields.iter().filter(|(name, _)| *name != "export") {
        match value {
            Value::Object(counters) => counters.iter().for_each(|(name, value)| {
                out.line(format!("  {:<18} {}", name.replace('_', " "), plain("", value)));
            }),
            Value::Array(list) if name == "jobs" => show_jobs(out, list),
            Value::Array(list) => {
                let texts: Vec<String> = list.iter().map(|item| plain("", item)).collect();
                out.line(format!("  {name:<18} {}", texts.join(" over ")));
            }
            _ => out.line(format!("  {:<18} {}", name.replace('_', " "), plain(name, value))),
        }
    }
}

fn show_jobs(out: &mut Out, jobs: &[Value]) {
    if jobs.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let text = |name| plain(name, &job[name]);
            let why = plain("", &job["error"]["what"]);
            let why = if job["error"].is_null() { String::new() } else { why };
            vec![
                text("job"),
                text("kind"),
                text("state"),
                text("reached_bytes"),
                text("total_bytes"),
                why,
            ]
        })
        .collect();
    output::table(out, &[">job", "kind", "state", ">reached", ">of", "why"], &rows);
}

fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if name.ends_with("_bytes") => {
            human_bytes(number.as_u64().unwrap_or(0))
        }
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}
