//! `icllama run --trace`: the file is one that Chrome's trace viewer reads, and its events account for the whole run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use crate::common::{failure, icllama, stdout, tiny};
use serde_json::Value;

#[derive(Debug, Clone)]
struct Event {
    name: String,
    category: String,
    thread: u64,
    layer: Option<u64>,
    /// Nanoseconds.
    start: u64,
    end: u64,
}

impl Event {
    fn parse(event: &Value) -> Self {
        let nanoseconds = |key: &str| (event[key].as_f64().unwrap() * 1e3).round() as u64;
        Self {
            name: event["name"].as_str().unwrap().into(),
            category: event["cat"].as_str().unwrap().into(),
            thread: event["tid"].as_u64().unwrap(),
            layer: event["args"]["layer"].as_u64(),
            start: nanoseconds("ts"),
            end: nanoseconds("ts") + nanoseconds("dur"),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    fn length(&self) -> u64 {
        self.end - self.start
    }
}

fn of<'a>(events: &'a [Event], category: &'a str) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(move |event| event.category == category)
}

fn sum<'a>(events: impl Iterator<Item = &'a Event>) -> u64 {
    events.map(Event::length).sum()
}

/// The events of a run of four tokens, and the names of its tracks.
fn traced(threads: &str) -> (Vec<Event>, Vec<String>) {
    let tiny = tiny();
    let path = tiny.folder.path().join("trace.json");
    let args = ["run", &tiny.path(), "-p", "Hello there", "--raw", "-n", "4", "--ignore-eos", "--temp", "0"];
    let plain = stdout(&icllama(&[&args[..], &["--threads", threads]].concat()));
    let more = ["--threads", threads, "--trace", path.to_str().unwrap()];
    assert_eq!(stdout(&icllama(&[&args[..], &more].concat())), plain, "a trace changes nothing");
    let all: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (complete, metadata): (Vec<_>, Vec<_>) = all.iter().partition(|event| event["ph"] == "X");
    assert!(metadata.iter().all(|event| event["ph"] == "M") && complete.iter().all(|event| event["pid"] == 1));
    let tracks = metadata.iter().filter(|event| event["name"] == "thread_name");
    let tracks = tracks.map(|event| event["args"]["name"].as_str().unwrap().to_owned()).collect();
    (complete.into_iter().map(Event::parse).collect(), tracks)
}

#[test]
fn the_events_nest_and_sum_to_the_run() {
    let (events, _) = traced("1");
    let answer = events.iter().find(|event| event.name == "answer").unwrap();
    assert!(events.iter().all(|event| answer.contains(event)));
    let steps: Vec<_> = of(&events, "step").cloned().collect();
    assert_eq!(steps.iter().filter(|step| step.name.contains("token ")).count(), 4);
    let between = events.iter().filter(|event| event.name == "between steps");
    assert_eq!(sum(steps.iter()) + sum(between), answer.length(), "steps and what lies between them are the whole");
    let sequence: Vec<_> = of(&events, "stage").filter(|stage| stage.thread == 0).collect();
    for step in &steps {
        let stages: Vec<_> = sequence.iter().filter(|stage| step.contains(stage)).copied().collect();
        assert_eq!((stages[0].start, stages.last().unwrap().end), (step.start, step.end));
        assert!(stages.windows(2).all(|pair| pair[0].end == pair[1].start), "stages follow each other without gaps");
        assert_eq!(sum(stages.iter().copied()), step.length());
        let layers: Vec<_> = of(&events, "layer").filter(|layer| step.contains(layer)).collect();
        assert_eq!(layers.iter().map(|layer| layer.layer.unwrap()).collect::<Vec<_>>(), [0, 1]);
        for layer in layers {
            let own = stages.iter().filter(|stage| stage.layer == layer.layer && layer.contains(stage));
            assert_eq!(sum(own.clone().copied()), layer.length());
            assert_eq!(own.filter(|stage| stage.name == "product: gate").count(), 1);
        }
        assert_eq!(stages.iter().filter(|stage| stage.name == "product: head").count(), 1);
    }
    assert!(sequence.iter().all(|stage| steps.iter().any(|step| step.contains(stage))));
}

#[test]
fn threads_have_names_and_work_inside_the_attention_of_the_sequence() {
    let (events, tracks) = traced("3");
    assert_eq!(tracks[..2], ["all threads together", "thread 1"]);
    let laps: Vec<_> = of(&events, "stage").filter(|stage| stage.thread > 0).collect();
    assert!(laps.iter().any(|lap| lap.name == "attention: mix"));
    for lap in laps {
        assert!((lap.thread as usize) < tracks.len(), "{lap:?} has a name for its thread");
        let whole = of(&events, "stage").filter(|stage| stage.thread == 0 && stage.name == "attention: rest");
        assert_eq!(whole.filter(|whole| whole.contains(lap) && whole.layer == lap.layer).count(), 1, "{lap:?}");
    }
}

#[test]
fn a_trace_needs_the_native_backend_and_a_place() {
    let tiny = tiny();
    let args = ["run", &tiny.path(), "-p", "Hi", "--trace", "/absent/trace.json"];
    let told = failure(&[&args[..], &["--backend", "shim"]].concat());
    assert!(told.contains("--backend native"), "{told}");
    let output = icllama(&args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("/absent/trace.json"), "{told}");
}
