//! Whether a machine was running.

use crate::LockState;
use crate::catalogue::File;
use crate::model::{Image, Location, Power, PowerState, Role};
use adit_core::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the answer is drawn from.
pub(crate) struct Signs<'a> {
    pub(crate) settings: &'a File,
    /// The machine's files beside the settings.
    pub(crate) files: &'a [File],
    /// The newest image of every attached disk: hosts hold it alone. Older ones are shared,
    /// and may be held for another machine.
    pub(crate) images: Vec<Arc<Image>>,
    /// Where the settings say the memory was saved, and whether it is there.
    pub(crate) suspend: Option<(String, Location)>,
}

/// Weighs the signs: held locks first, then a suspend file, then what the locks leave open.
pub(crate) fn power(signs: &Signs<'_>, lock_state: &LockState<'_>) -> Power {
    let (mut held, mut free) = (Vec::new(), 0u64);
    for (node, name) in locked(signs) {
        match lock_state(node) {
            Some(lock) if lock.held => {
                held.push(format!("{name} is locked by {}", lock.owner));
            }
            Some(_) => free = free.saturating_add(1),
            None => {}
        }
    }
    if !held.is_empty() {
        return Power { state: PowerState::On, evidence: held };
    }
    if let Some(evidence) = suspended(signs) {
        return Power { state: PowerState::Suspended, evidence };
    }
    let swap = signs.files.iter().filter(|file| file.role == Role::Swap);
    let mut evidence: Vec<String> =
        swap.map(|file| format!("the swap file {} is there", file.path)).collect();
    if free > 0 {
        evidence.insert(0, format!("none of {free} locks is held"));
        return Power { state: PowerState::Off, evidence };
    }
    if evidence.is_empty() {
        evidence.push("no locks could be read".to_owned());
    }
    Power { state: PowerState::Unknown, evidence }
}

/// The files a running machine holds, each once, with a name for it.
fn locked(signs: &Signs<'_>) -> BTreeMap<NodeId, String> {
    let mut nodes = BTreeMap::from([(signs.settings.node, signs.settings.path.to_string())]);
    for file in signs.files {
        if matches!(file.role, Role::Swap | Role::Lock) {
            nodes.insert(file.node, file.path.to_string());
        }
    }
    for (image, extent) in signs
        .images
        .iter()
        .flat_map(|image| image.extents.iter().map(move |extent| (image, extent)))
    {
        if let Some(node) = extent.node {
            nodes.insert(node, format!("{}, extent of {}", extent.name, image.path));
        }
    }
    nodes
}

fn suspended(signs: &Signs<'_>) -> Option<Vec<String>> {
    let mut evidence = Vec::new();
    if let Some((name, location)) = &signs.suspend
        && location.path().is_some()
    {
        evidence.push(format!("the settings resume from {name}"));
    }
    let saved = signs.files.iter().filter(|file| file.role == Role::SuspendState);
    evidence.extend(saved.map(|file| format!("{} is there", file.path)));
    (!evidence.is_empty()).then_some(evidence)
}
