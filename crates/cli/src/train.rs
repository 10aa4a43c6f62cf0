//! `limber train --config C [--resume]`: trains the stitch; Ctrl-C and SIGTERM leave a checkpoint.

use super::options::Shared;
use super::output;
use super::progress::{Bar, Progress as Items, shown};
use anyhow::{Context, Result, bail};
use clap::Args;
use limber_pipeline::{RunFolder, plugins};
use limber_train::{Event, Interrupted, Options, Ranks, Record, Validated, launched, starting, train};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// Resume from the newest checkpoint in train.output
    #[arg(long)]
    resume: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let ranks = launched()?;
    match run_in(ranks.as_ref(), arguments) {
        // All processes stop together, so that one of them speaks for all and none has to be ended.
        Err(error) if error.is::<Interrupted>() && ranks.rank() > 0 => {
            drop(ranks);
            std::process::exit(1)
        }
        Err(error) if ranks.size() > 1 && !error.is::<Interrupted>() => {
            output::error(&error.context(format!("process {} of {}", ranks.rank(), ranks.size())));
            ranks.abort()
        }
        done => done,
    }
}

fn run_in(ranks: &dyn Ranks, arguments: &Arguments) -> Result<()> {
    if let Some(run) = arguments.shared.run.as_ref().filter(|_| arguments.resume)
        && run.parse::<RunFolder>()?.is_one_checkpoint()
    {
        bail!(
            "--resume goes on from the newest checkpoint, but --run names one, {run:?}; to train on from it leave --resume out \
             and name another folder in train.output"
        )
    }
    let config = arguments.shared.load(None)?;
    let registry = plugins::registry(&config)?;
    arguments.shared.bring_for_training(&starting(&config, arguments.resume)?, &registry)?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let speaks = ranks.rank() == 0;
    let note = move |text: &str| {
        if speaks {
            output::note(text)
        }
    };
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            // Asked twice: a step may take minutes, and the last checkpoint is safe.
            std::process::exit(130);
        }
        note("stopping with a checkpoint of the steps that are done; a second Ctrl-C stops at once, without one");
    })
    .context("cannot listen to Ctrl-C")?;
    let steps = config.train.as_ref().map_or(0, |t| t.steps);
    let mut progress = Progress::new(steps as u64, speaks);
    let offline = arguments.shared.network.offline;
    let options = Options { resume: arguments.resume, offline, stop: &stop, ranks };
    let mut fitting: Option<Items> = None;
    let outcome = train(&config, &registry, &options, &mut |event| match event {
        Event::Fitting(done, of) if speaks => {
            fitting.get_or_insert_with(|| Items::new(of as u64, "items read for the start")).at(done as u64);
        }
        Event::Started(started) if speaks => {
            fitting.take().into_iter().for_each(Items::finish);
            progress.bar.say(|| output::progress(started));
            started.notes.iter().for_each(|text| progress.bar.say(|| output::note(text)));
            progress.started(started.done as u64);
        }
        Event::Step(record) if speaks => progress.step(record),
        Event::Validated(validated) if speaks => progress.validated(validated),
        _ => {}
    })?;
    progress.finish();
    if !speaks {
        return Ok(());
    }
    if outcome.skipped > 0 {
        output::note(&format!("{} items could not be read; skipped.jsonl names them", outcome.skipped));
    }
    let stitch = outcome.stitch.as_ref().map(|path| path.display().to_string());
    if arguments.shared.json {
        return output::json(&json!({"steps": outcome.steps, "skipped": outcome.skipped, "stitch": stitch}));
    }
    output::line(&stitch.unwrap_or_default())
}

/// A bar with loss, rate and time left on a terminal, a line from time to time elsewhere.
struct Progress {
    bar: Bar,
    total: u64,
    /// Steps done before the first of this run.
    before: u64,
    waiting: Option<Waiting>,
}

impl Progress {
    fn new(total: u64, speaks: bool) -> Self {
        Self { bar: Bar::count(total, speaks), total, before: 0, waiting: None }
    }

    /// The first step begins, which may take minutes.
    fn started(&mut self, done: u64) {
        self.before = done;
        self.bar.restart(done);
        if self.bar.is_hidden() && done < self.total {
            self.waiting = Some(Waiting::new(done, self.total));
        } else {
            self.bar.message("first step");
            self.bar.show();
        }
    }

    fn step(&mut self, record: &Record) {
        let rate = record.samples as f64 / record.step_s.max(1e-9);
        let text = format!("loss {:.4}, {} samples/s", record.loss, shown(rate));
        let done = record.step as u64 + 1;
        let is_due = self.bar.at(done);
        if self.bar.is_hidden() && (is_due || done == self.before + 1 || done == self.total) {
            output::progress(format_args!("step {done}/{}: {text}, lr {:.3e}", self.total, record.lr));
        }
        if let Some(waiting) = &self.waiting {
            waiting.done(done);
        }
        self.bar.message(text);
    }

    fn finish(&mut self) {
        self.waiting = None;
        self.bar.finish();
    }

    /// The loss of held-out data, and the first caption.
    fn validated(&mut self, validated: &Validated) {
        let Validated { step, loss, items, captions, .. } = validated;
        let said = captions.first().map(|c| format!("; {}: {:?}, its caption is {:?}", c.item, c.text, c.caption));
        let line = format!("validation after step {step}: loss {loss:.4} of {items} items{}", said.unwrap_or_default());
        self.bar.say(|| output::progress(line));
    }
}

/// Says how long a step is under way where it takes long, so that a silent log is no riddle.
struct Waiting {
    done: Option<Sender<u64>>,
    thread: Option<JoinHandle<()>>,
}

/// From a step's begin to the first line; each further one waits twice as long.
const FIRST: Duration = Duration::from_secs(5);

/// The longest time between two lines.
const LONGEST: Duration = Duration::from_secs(60);

impl Waiting {
    /// The step after `done` of `total` begins.
    fn new(mut done: u64, total: u64) -> Self {
        let (sender, receiver) = channel();
        output::progress(format_args!("step {}/{total}: under way", done + 1));
        let speak = move || {
            let (mut since, mut pause) = (Instant::now(), FIRST);
            loop {
                match receiver.recv_timeout(pause) {
                    Ok(now) => (done, since, pause) = (now, Instant::now(), FIRST),
                    Err(RecvTimeoutError::Timeout) if done >= total => {}
                    Err(RecvTimeoutError::Timeout) => {
                        output::progress(format_args!(
                            "step {}/{total}: under way for {} s",
                            done + 1,
                            since.elapsed().as_secs()
                        ));
                        pause = (pause * 2).min(LONGEST);
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        // Without the thread nothing is missing but its lines.
        let thread = std::thread::Builder::new().name("waiting".to_string()).spawn(speak).ok();
        Self { done: Some(sender), thread }
    }

    /// So many steps are done.
    fn done(&self, steps: u64) {
        self.done.iter().for_each(|sender| _ = sender.send(steps));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.done = None;
        self.thread.take().map(JoinHandle::join);
    }
}
