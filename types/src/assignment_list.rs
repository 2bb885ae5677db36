//! How a list of assignments is kept: what many of them run stands there once, and each names it by its number.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Assignment, Digest, Epoch, Generation, ReplicaId, RetentionSpec, TaskSpec};

#[derive(Serialize, Deserialize)]
struct List {
    tasks: Vec<TaskSpec>,
    replicas: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    replica: ReplicaId,
    generation: Generation,
    epoch: Epoch,
    image: Digest,
    stateful: bool,
    #[serde(default, skip_serializing_if = "RetentionSpec::is_unset")]
    retention: RetentionSpec,
    /// Its place in `tasks`.
    task: usize,
}

/// Gives each distinct task a number, from 0.
#[derive(Debug, Default)]
pub struct TaskNumbers {
    tasks: Vec<Arc<TaskSpec>>,
    /// By address: assignments that were made together share their task.
    known: HashMap<*const TaskSpec, usize>,
}

impl TaskNumbers {
    /// The number of a task.
    pub fn number(&mut self, task: &Arc<TaskSpec>) -> usize {
        if let Some(number) = self.known.get(&Arc::as_ptr(task)) {
            return *number;
        }
        if let Some(number) = self.tasks.iter().position(|known| known == task) {
            return number;
        }
        // The task is kept, so that its address stays its own.
        self.known.insert(Arc::as_ptr(task), self.tasks.len());
        self.tasks.push(Arc::clone(task));
        self.tasks.len() - 1
    }

    /// The tasks by their numbers.
    #[must_use]
    pub fn into_tasks(self) -> Vec<Arc<TaskSpec>> {
        self.tasks
    }
}

pub(crate) fn serialize<S: Serializer>(assignments: &[Assignment], to: S) -> Result<S::Ok, S::Error> {
    let mut numbers = TaskNumbers::default();
    let listed = assignments.iter().map(|assignment| Listed {
        replica: assignment.replica.clone(),
        generation: assignment.generation,
        epoch: assignment.epoch,
        image: assignment.image,
        stateful: assignment.stateful,
        retention: assignment.retention,
        task: numbers.number(&assignment.task),
    });
    let replicas = listed.collect();
    let tasks = numbers.into_tasks().iter().map(|task| (**task).clone()).collect();
    List { tasks, replicas }.serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Assignment>, D::Error> {
    let List { tasks, replicas } = List::deserialize(from)?;
    let tasks: Vec<Arc<TaskSpec>> = tasks.into_iter().map(Arc::new).collect();
    let read = |listed: Listed| {
        let task = tasks.get(listed.task);
        let task = task.ok_or_else(|| D::Error::custom(format!("there is no task {}", listed.task)))?;
        Ok(Assignment {
            replica: listed.replica,
            generation: listed.generation,
            epoch: listed.epoch,
            image: listed.image,
            stateful: listed.stateful,
            retention: listed.retention,
            task: Arc::clone(task),
        })
    };
    replicas.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostDocument;

    #[test]
    fn a_task_of_many_replicas_is_kept_once_and_shared_again() {
        let task = r#"{"name": "t", "driver": "app-partition", "config": {"package": "web"}}"#;
        let task: Arc<TaskSpec> = Arc::new(serde_json::from_str(task).expect("a task"));
        let assignment = |index: u32| Assignment {
            replica: format!("d/g/{index}").parse().expect("a replica"),
            generation: Generation(1),
            epoch: Epoch(1),
            image: Digest::of(b"image"),
            stateful: true,
            retention: RetentionSpec::default(),
            task: Arc::clone(&task),
        };
        let assignments = (0..100).map(assignment).collect();
        let document = HostDocument { assignments, version: 3, ..HostDocument::default() };
        let kept = serde_json::to_string(&document).expect("a document is JSON");
        assert_eq!(kept.matches("app-partition").count(), 1);
        let read: HostDocument = serde_json::from_str(&kept).expect("what was kept");
        assert_eq!(read, document);
        assert!(Arc::ptr_eq(&read.assignments[0].task, &read.assignments[99].task));
        let damaged = kept.replace("\"task\":0", "\"task\":7");
        assert!(serde_json::from_str::<HostDocument>(&damaged).is_err());
    }
}
