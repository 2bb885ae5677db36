//! Random work on several partitions, with restarts, against a model in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hvm_runtime::state::{IdempotencyWindow, PartitionState, StateEngine};
use hvm_types::{ByteSize, Sequence};

use crate::bed::{Bed, LocalBed, Numbers, SharedBed, open, record, replica};

const PARTITIONS: u32 = 5;
const STEPS: usize = 600;

#[derive(Default)]
struct Model {
    entries: BTreeMap<(String, String), Vec<u8>>,
    sequence: u64,
    epoch: u64,
}

impl Model {
    fn stored(&self) -> u64 {
        self.entries.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }

    fn check(&self, partition: &dyn PartitionState) {
        let snapshot = partition.snapshot().expect("a snapshot");
        assert_eq!(snapshot.sequence(), Sequence(self.sequence));
        assert_eq!(partition.stored_bytes(), Ok(ByteSize(self.stored())));
        for bucket in ["x", "y"] {
            let mut expected = self.entries.iter().filter(|((b, _), _)| b == bucket);
            let keys = snapshot.list_keys(bucket, None, 1000).expect("a page").keys;
            for key in keys {
                let ((_, name), value) = expected.next().expect("no more keys than in the model");
                assert_eq!(&key, name);
                let found = snapshot.get(bucket, &key).expect("a read").expect("a listed key has a value");
                assert_eq!(&*found, value.as_slice());
            }
            assert!(expected.next().is_none(), "keys are missing");
        }
    }
}

fn change(numbers: &mut Numbers, model: &mut Model, partition: &dyn PartitionState) {
    let mut futures = Vec::new();
    for _ in 0..=numbers.below(3) {
        let mut record = record(&[]);
        for _ in 0..numbers.below(6) {
            let bucket = ["x", "y"][numbers.below(2)];
            let key = format!("key-{}", numbers.below(30));
            if numbers.below(3) == 0 {
                record.writes.delete(bucket, &key);
                model.entries.remove(&(bucket.to_owned(), key));
            } else {
                let longest = if numbers.below(20) == 0 { 500_000 } else { 40 };
                let value = vec![b'v'; numbers.below(longest + 1)];
                record.writes.put(bucket, &key, Bytes::from(value.clone()));
                model.entries.insert((bucket.to_owned(), key), value);
            }
        }
        model.sequence += 1;
        futures.push((model.sequence, partition.commit(record)));
    }
    for (sequence, future) in futures {
        assert_eq!(future.wait(), Ok(Sequence(sequence)));
    }
}

fn open_all(engine: &dyn StateEngine, models: &mut [Model]) -> Vec<Arc<dyn PartitionState>> {
    (0..)
        .zip(models)
        .map(|(i, model)| {
            model.epoch += 1;
            open(engine, i, model.epoch)
        })
        .collect()
}

#[test]
fn random_work_with_restarts_equals_a_model() {
    check_random_work(&LocalBed::new());
}

#[test]
fn random_work_on_shared_state_equals_a_model() {
    check_random_work(&SharedBed::new());
}

fn check_random_work(bed: &impl Bed) {
    let mut numbers = Numbers::printed();
    let mut models: Vec<Model> = (0..PARTITIONS).map(|_| Model::default()).collect();
    let mut engine = bed.start(IdempotencyWindow::default());
    let mut partitions = open_all(&*engine, &mut models);
    for _ in 0..STEPS {
        let chosen = numbers.below(models.len());
        match numbers.below(60) {
            0 => {
                partitions.clear();
                drop(engine);
                engine = bed.start(IdempotencyWindow::default());
                partitions = open_all(&*engine, &mut models);
            }
            1 => {
                let index = u32::try_from(chosen).expect("a small number");
                engine.remove(&replica(index)).expect("the partition is removed");
                models[chosen] = Model { epoch: 1, ..Model::default() };
                partitions[chosen] = open(&*engine, index, 1);
            }
            _ => change(&mut numbers, &mut models[chosen], &*partitions[chosen]),
        }
        models[chosen].check(&*partitions[chosen]);
    }
    for (model, partition) in models.iter().zip(&partitions) {
        model.check(&**partition);
    }
}
