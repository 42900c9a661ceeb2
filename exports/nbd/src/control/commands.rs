//! What can be asked of served disks.

use super::socket::Turn;
use crate::Export;
use adit_core::{Error, Problem, Result};
use adit_filters::Filters;
use adit_overlay::{Job, JobState, Live};
use serde_json::{Map, Value, json};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a drain may take before a change is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes and merges the files behind layers; the server itself knows no format.
pub trait Keeper: Debug + Send + Sync {
    /// Puts a new layer on top, kept under `name` or one that it chooses, and tells what is what.
    ///
    /// Errors: as [`Live::push`]; then files and layers are as before.
    fn snapshot(&self, live: &Arc<Live>, patience: Duration, name: Option<&str>) -> Result<Value>;

    /// Merges the top into the layer below.
    ///
    /// Errors: as [`Live::commit`]; `Denied` if that is the original and nobody said so.
    fn commit(&self, live: &Arc<Live>, patience: Duration, original: bool) -> Result<Arc<Job>>;

    /// Makes the top independent.
    ///
    /// Errors: as [`Live::flatten`].
    fn flatten(&self, live: &Arc<Live>, patience: Duration) -> Result<Arc<Job>>;

    /// Puts another overlay of the same disk in the place of the layers there are.
    ///
    /// Errors: as [`Live::swap`].
    fn swap(&self, live: &Arc<Live>, patience: Duration, file: &Path) -> Result<Value>;
}

/// An export, and what can be done with it.
#[derive(Debug)]
pub struct Managed {
    /// The export as it was given to the server.
    pub export: Export,
    /// Its layers, if they can be changed.
    pub live: Option<Arc<Live>>,
    /// Its files, likewise.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Its filters.
    pub filters: Filters,
    turn: Turn,
}

impl Managed {
    /// An export whose layers stay as they are.
    pub fn fixed(export: Export, filters: Filters) -> Managed {
        Managed { export, live: None, keeper: None, filters, turn: Turn::default() }
    }

    /// An export whose layers change.
    pub fn live(
        export: Export,
        filters: Filters,
        live: Arc<Live>,
        keeper: Arc<dyn Keeper>,
    ) -> Managed {
        let (live, keeper) = (Some(live), Some(keeper));
        Managed { export, live, keeper, filters, turn: Turn::default() }
    }

    fn stack(&self) -> Result<&Arc<Live>> {
        self.live.as_ref().ok_or_else(|| {
            Error::unsupported(format!("export {:?} has no layers to change", self.export.name()))
                .advise("serve it with --overlay or --writable")
        })
    }

    fn keeper(&self) -> Result<&Arc<dyn Keeper>> {
        self.stack()?;
        self.keeper.as_ref().ok_or_else(|| Error::unsupported("nobody keeps its layers"))
    }

    fn describe(&self) -> Value {
        let mut about = json!({
            "export": self.export.name(),
            "description": self.export.description(),
            "size_bytes": self.export.size_bytes(),
            "writable": self.export.is_writable(),
            "closed": self.export.is_closed(),
        });
        if let Some(live) = &self.live {
            let names: Vec<String> = live.layers().into_iter().map(|layer| layer.name).collect();
            about["paused"] = live.is_paused().into();
            // The one that is written comes first, as in a chain of images.
            about["layers"] = names.into_iter().rev().collect();
        }
        about
    }

    fn stats(&self) -> Value {
        let mut counters = Map::new();
        for (name, value, _) in self.export.counters().all() {
            counters.insert(name.into(), value.into());
        }
        for (name, value) in self.filters.counters() {
            // Of two filters of one kind, the sum.
            let before = counters.get(name).and_then(Value::as_u64).unwrap_or(0);
            counters.insert(name.into(), before.saturating_add(value).into());
        }
        let mut about = json!({ "export": self.export.name(), "counters": counters });
        if let Some(limit) = self.filters.rate_limit() {
            let (bytes, ops) = limit.limits();
            about["ratelimit"] = json!({ "bytes_per_second": bytes, "ops_per_second": ops });
        }
        about["jobs"] = self.jobs();
        about
    }

    fn jobs(&self) -> Value {
        let jobs = self.live.iter().flat_map(|live| live.jobs());
        jobs.map(|job| job_json(&job)).collect()
    }
}

fn job_json(job: &Job) -> Value {
    let (reached, copied) = job.progress();
    let state = job.state();
    let mut about = json!({
        "job": job.id,
        "kind": job.kind.word(),
        "state": state.word(),
        "total_bytes": job.total_bytes,
        "reached_bytes": reached,
        "copied_bytes": copied,
    });
    if let JobState::Failed(error) = state {
        about["error"] = json!({ "kind": error.kind().word(), "what": error.detail() });
    }
    about
}

/// Does what a request says.
pub(super) fn answer(request: &Value, exports: &[Managed]) -> Result<Value> {
    let text = |name: &str| request[name].as_str();
    let cmd = text("cmd").ok_or_else(|| bad("a request needs a \"cmd\""))?;
    match cmd {
        "list" => {
            return Ok(
                json!({ "exports": exports.iter().map(Managed::describe).collect::<Vec<_>>() }),
            );
        }
        "stats" => {
            let chosen = exports
                .iter()
                .filter(|it| text("export").is_none_or(|name| name == it.export.name()));
            return Ok(json!({ "exports": chosen.map(Managed::stats).collect::<Vec<_>>() }));
        }
        _ => {}
    }
    let managed = find(text("export"), exports)?;
    match cmd {
        "jobs" => Ok(json!({ "jobs": managed.jobs() })),
        "cancel" => {
            let id = number(request, "job")?.ok_or_else(|| bad("which \"job\"?"))?;
            let jobs = managed.stack()?.jobs();
            let job = jobs.iter().find(|job| job.id == id);
            let job = job.ok_or_else(|| Error::not_found(format!("there is no job {id}")))?;
            job.cancel();
            job.wait();
            Ok(job_json(job))
        }
        // Without the turn: whoever waits for a drain must be able to be helped.
        "unpause" => Ok(json!({ "was_paused": managed.stack()?.unpause() })),
        "pause" => managed.stack()?.pause(PATIENCE).map(|()| json!({})),
        "ratelimit" => ratelimit(managed, request),
        "close" => {
            let _turn = managed.turn.take();
            managed.export.close();
            if let Some(live) = &managed.live {
                managed.filters.retries().for_each(|retry| retry.stop());
                live.unpause();
                live.close(PATIENCE)?;
            }
            Ok(json!({}))
        }
        "snapshot" => {
            let _turn = managed.turn.take();
            managed.keeper()?.snapshot(managed.stack()?, PATIENCE, text("name"))
        }
        "commit" => {
            let _turn = managed.turn.take();
            let original = request["into_original"] == true;
            let job = managed.keeper()?.commit(managed.stack()?, PATIENCE, original)?;
            Ok(ended_or_not(&job, request))
        }
        "flatten" => {
            let _turn = managed.turn.take();
            let job = managed.keeper()?.flatten(managed.stack()?, PATIENCE)?;
            Ok(ended_or_not(&job, request))
        }
        "swap" => {
            let _turn = managed.turn.take();
            let file = text("file").ok_or_else(|| bad("which \"file\"?"))?;
            let done = managed.keeper()?.swap(managed.stack()?, PATIENCE, Path::new(file));
            // Whether it worked or not: nobody may go by what was looked up before.
            managed.export.changed();
            done
        }
        "resize" => {
            let _turn = managed.turn.take();
            let size = number(request, "size_bytes")?.ok_or_else(|| bad("which \"size_bytes\"?"))?;
            managed.stack()?.resize(PATIENCE, size)?;
            managed.export.changed();
            Ok(json!({
                "size_bytes": size,
                "note": "clients see the new size when they connect next; those there may use it at once",
            }))
        }
        _ => Err(bad(format!("there is no command {:?}", cmd.chars().take(40).collect::<String>()))
            .advise("commands: list stats pause unpause snapshot commit flatten swap resize ratelimit jobs cancel close")),
    }
}

/// A job as it is, or with `"wait": true` as it ended.
fn ended_or_not(job: &Job, request: &Value) -> Value {
    if request["wait"] == true {
        job.wait();
    }
    job_json(job)
}

fn ratelimit(managed: &Managed, request: &Value) -> Result<Value> {
    let limit = managed.filters.rate_limit().ok_or_else(|| {
        Error::unsupported("the export was served without a rate limit")
            .advise("serve it with --filter ratelimit, which limits nothing until told to")
    })?;
    let (bytes, ops) = limit.limits();
    let bytes = number(request, "bytes")?.unwrap_or(bytes);
    let ops = number(request, "ops")?.unwrap_or(ops);
    limit.change(bytes, ops);
    Ok(json!({ "bytes_per_second": bytes, "ops_per_second": ops }))
}

/// The export of that name; without one, the only one there is.
fn find<'a>(name: Option<&str>, exports: &'a [Managed]) -> Result<&'a Managed> {
    let names = || {
        let names: Vec<String> =
            exports.iter().map(|it| format!("{:?}", it.export.name())).collect();
        format!("exports are {}", names.join(", "))
    };
    match (name, exports) {
        (None, [only]) => Ok(only),
        (None, _) => Err(bad("there are several exports: say which").advise(names())),
        (Some(name), _) => exports
            .iter()
            .find(|it| it.export.name() == name)
            .ok_or_else(|| Error::not_found("there is no export of that name").advise(names())),
    }
}

/// A number that need not be there, but if it is must be one.
fn number(request: &Value, name: &str) -> Result<Option<u64>> {
    match &request[name] {
        Value::Null => Ok(None),
        value => value.as_u64().map(Some).ok_or_else(|| bad(format!("{name:?} is no number"))),
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Error::invalid(Problem::BadValue, detail)
}
