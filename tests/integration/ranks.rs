//! Several processes, played by threads: what they train together is what one trains alone.

use super::train::{config, lively, log, numbers, stitch};
use limber::config::load;
use limber::train::{Alone, Event, Interrupted, Options, Ranks, train};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Barrier, Mutex};

/// What the threads of one run share.
struct Meeting {
    barrier: Barrier,
    values: Mutex<Vec<Vec<f64>>>,
    texts: Mutex<Vec<String>>,
}

/// One of the threads.
struct Threads<'a> {
    rank: usize,
    meeting: &'a Meeting,
}

impl Threads<'_> {
    fn add(&self, own: Vec<f64>) -> Vec<f64> {
        self.meeting.values.lock().unwrap()[self.rank] = own;
        self.meeting.barrier.wait();
        let all = self.meeting.values.lock().unwrap().clone();
        self.meeting.barrier.wait();
        (0..all[0].len()).map(|i| all.iter().map(|values| values[i]).sum()).collect()
    }
}

impl Ranks for Threads<'_> {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.meeting.values.lock().unwrap().len()
    }
    fn local(&self) -> usize {
        self.rank
    }
    fn sum(&self, values: &mut [f32]) -> anyhow::Result<()> {
        let sums = self.add(values.iter().map(|x| f64::from(*x)).collect());
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum as f32);
        Ok(())
    }
    fn sum_exact(&self, values: &mut [f64]) -> anyhow::Result<()> {
        let sums = self.add(values.to_vec());
        values.copy_from_slice(&sums);
        Ok(())
    }
    fn gather(&self, text: &str) -> anyhow::Result<Vec<String>> {
        self.meeting.texts.lock().unwrap()[self.rank] = text.to_string();
        self.meeting.barrier.wait();
        let all = self.meeting.texts.lock().unwrap().clone();
        self.meeting.barrier.wait();
        Ok(all)
    }
    fn abort(&self) -> ! {
        panic!("rank {} aborts", self.rank)
    }
}

/// Trains with `size` threads, each with the config of its rank; what each of them returned.
fn together(
    size: usize,
    resume: bool,
    stop: Option<usize>,
    path: impl Fn(usize) -> String + Sync,
) -> Vec<Result<(), anyhow::Error>> {
    let meeting = Meeting {
        barrier: Barrier::new(size),
        values: Mutex::new(vec![Vec::new(); size]),
        texts: Mutex::new(vec![String::new(); size]),
    };
    std::thread::scope(|scope| {
        let run = |rank: usize| {
            let (meeting, path) = (&meeting, path(rank));
            scope.spawn(move || {
                let registry = limber::built_in::registry().unwrap();
                let asked = AtomicBool::new(false);
                let options = Options { resume, offline: true, stop: &asked, ranks: &Threads { rank, meeting } };
                let config = load(Path::new(&path), &[]).unwrap().config;
                train(&config, &registry, &options, &mut |event| match event {
                    // One process alone is asked to stop.
                    Event::Step(record) if rank == size - 1 && Some(record.step) == stop => {
                        asked.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    _ => {}
                })
                .map(drop)
            })
        };
        let threads: Vec<_> = (0..size).map(run).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn alone(path: &Path) {
    let registry = limber::built_in::registry().unwrap();
    let options = Options { resume: false, offline: true, stop: &AtomicBool::new(false), ranks: &Alone };
    train(&load(path, &[]).unwrap().config, &registry, &options, &mut |_| ()).unwrap();
}

#[test]
fn two_with_half_the_batch_are_one_with_all_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let with = |name: &str, batch: usize| {
        let mut changes = lively();
        // Each process draws the dropout of its own micro-batches, so that half a batch is compared without.
        changes.extend([("/stitch/dropout", json!(0.0)), ("/train/steps", json!(30)), ("/train/batch", json!(batch))]);
        let output = temp.path().join(name);
        (config(&output, &changes), output)
    };
    let (path, whole) = with("whole", 4);
    alone(&path);
    let (path, halves) = with("halves", 2);
    let done = together(2, false, None, |_| path.display().to_string());
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    for (one, two) in log(&whole).iter().zip(log(&halves)) {
        for key in ["step", "tokens", "samples", "lr"] {
            assert_eq!(one[key], two[key]);
        }
        let (a, b) = (one["loss"].as_f64().unwrap(), two["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{one} {two}");
    }
    assert_eq!(log(&halves).len(), 30);
}

#[test]
fn three_in_turn_are_one_that_accumulates_dropout_and_all() {
    let temp = tempfile::tempdir().unwrap();
    for (name, compat) in [("step", Value::Null), ("original", json!("original"))] {
        let mut changes = lively();
        changes.extend([("/compat", compat), ("/train/steps", json!(12)), ("/train/batch", json!(2))]);
        let with = |folder: &str, accumulate: usize| {
            let output = temp.path().join(format!("{name}-{folder}"));
            let mut changes = changes.clone();
            changes.push(("/train/accumulate", json!(accumulate)));
            (config(&output, &changes), output)
        };
        let (path, whole) = with("whole", 6);
        alone(&path);
        let (path, thirds) = with("thirds", 2);
        let done = together(3, false, None, |_| path.display().to_string());
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        for (one, three) in log(&whole).iter().zip(log(&thirds)) {
            let (a, b) = (one["loss"].as_f64().unwrap(), three["loss"].as_f64().unwrap());
            assert!((a - b).abs() < 1e-5, "{one} {three}");
        }
        let (a, b) = (&stitch(&whole)["weight"], &stitch(&thirds)["weight"]);
        let far = super::golden::relative(b, a);
        assert!(far < 1e-4, "{far}");
    }
}

#[test]
fn one_that_is_asked_to_stop_stops_all_and_they_go_on_together() {
    let temp = tempfile::tempdir().unwrap();
    let mut changes = lively();
    changes.push(("/train/save_every", json!(100)));
    let whole = temp.path().join("whole");
    let path = config(&whole, &changes);
    assert!(together(2, false, None, |_| path.display().to_string()).iter().all(Result::is_ok));
    let cut = temp.path().join("cut");
    let path = config(&cut, &changes);
    for done in together(2, false, Some(7), |_| path.display().to_string()) {
        let error = done.unwrap_err();
        assert!(error.is::<Interrupted>(), "{error:#}");
        assert!(error.to_string().contains("interrupted after step 8"), "{error:#}");
    }
    let registry = limber::built_in::registry().unwrap();
    let options = Options { resume: true, offline: true, stop: &AtomicBool::new(false), ranks: &Alone };
    let error = train(&load(&path, &[]).unwrap().config, &registry, &options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("it trained with 2 processes and has 1 now"), "{error:#}");
    assert!(together(2, true, None, |_| path.display().to_string()).iter().all(Result::is_ok));
    assert_eq!(fs::read(cut.join("stitch.safetensors")).unwrap(), fs::read(whole.join("stitch.safetensors")).unwrap());
    assert_eq!(numbers(&cut), numbers(&whole));
}

#[test]
fn processes_that_differ_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let paths: Vec<String> = [8, 9]
        .iter()
        .map(|seed| {
            let output = temp.path().join(format!("{seed}"));
            config(&output, &[("/stitch/weights", json!(format!("random:{seed}")))]).display().to_string()
        })
        .collect();
    for done in together(2, false, None, |rank| paths[rank].clone()) {
        let error = done.unwrap_err().to_string();
        assert!(error.contains("the processes differ in config, checkpoint or starting stitch"), "{error}");
    }
}

#[test]
fn what_any_of_them_passes_over_is_counted_and_named_once() {
    let temp = tempfile::tempdir().unwrap();
    let data = super::train::spoilt(temp.path(), 4);
    let changes = |accumulate: usize| {
        [
            ("/data/path", json!(data)),
            ("/data/max_skipped", json!(0.6)),
            ("/train/steps", json!(7)),
            ("/train/batch", json!(1)),
            ("/train/accumulate", json!(accumulate)),
        ]
    };
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    alone(&config(&one, &changes(4)));
    let path = config(&two, &changes(2));
    assert!(together(2, false, None, |_| path.display().to_string()).iter().all(Result::is_ok));
    let skipped = |output: &Path| -> Vec<String> {
        let text = fs::read_to_string(output.join("skipped.jsonl")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    // 28 samples: each of the four bad items twice, and whatever its replacement met.
    assert!(skipped(&one).len() >= 8);
    assert_eq!(skipped(&one), skipped(&two));
    let state = fs::read_to_string(two.join("checkpoints/step-00000007/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["skipped"], &state["samples"]), (&json!(skipped(&two).len()), &json!(28)));
}
