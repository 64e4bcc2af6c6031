//! A run as a trace in the JSON format of Chrome's trace viewer, which Perfetto reads too: what was computed when, in
//! every layer of every token, and on which thread. Knows nothing of models.
//!
//! Source: "Trace Event Format", complete events (`ph` X) and metadata events (`ph` M); times are microseconds.

use std::cmp::Reverse;
use std::io::{self, Write};

use model_core::profile::Stretch;
use serde::Serialize;
use serde_json::{Value, json};

/// The sequence of the whole work; threads follow.
const SEQUENCE: usize = 0;
const PROCESS: u32 = 1;

/// What happened when, in nanoseconds of one clock.
#[derive(Debug, Default)]
pub struct Trace {
    events: Vec<Event>,
    threads: usize,
}

/// What an event is, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Category {
    Run,
    Step,
    Layer,
    Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: String,
    category: Category,
    track: usize,
    start: u64,
    end: u64,
    args: Value,
}

/// An event as the format has it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    cat: Category,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: usize,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: &'a Value,
}

impl Trace {
    /// Adds a part of the run that is no step of the computation: the whole, or what lies between steps.
    pub fn span(&mut self, name: &str, (start, end): (u64, u64)) {
        self.push(name.to_owned(), Category::Run, SEQUENCE, (start, end), Value::Null);
    }

    /// Adds a step with all that was done in it.
    pub fn step(&mut self, name: &str, range: (u64, u64), stretches: &[Stretch]) {
        self.push(name.to_owned(), Category::Step, SEQUENCE, range, Value::Null);
        let (all, threads): (Vec<&Stretch>, Vec<&Stretch>) =
            stretches.iter().partition(|stretch| stretch.thread.is_none());
        for run in all.chunk_by(|one, next| one.layer == next.layer) {
            if let (Some(first), Some(last), Some(layer)) = (run.first(), run.last(), run.first().and_then(|s| s.layer))
            {
                let args = json!({ "layer": layer });
                self.push(format!("layer {layer}"), Category::Layer, SEQUENCE, (first.start, last.end), args);
            }
        }
        for stretch in all.into_iter().chain(threads) {
            let track = stretch.thread.map_or(SEQUENCE, |thread| thread + 1);
            self.threads = self.threads.max(track);
            let args = stretch.layer.map_or(Value::Null, |layer| json!({ "layer": layer }));
            self.push(stretch.stage.name().to_owned(), Category::Stage, track, (stretch.start, stretch.end), args);
        }
    }

    fn push(&mut self, name: String, category: Category, track: usize, (start, end): (u64, u64), args: Value) {
        self.events.push(Event { name, category, track, start, end, args });
    }

    /// Writes the JSON array, one event per line.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = |what: &str, track: usize, name: &str| json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": { "name": name } });
        write!(out, "[\n{}", name("process_name", SEQUENCE, "icllama"))?;
        write!(out, ",\n{}", name("thread_name", SEQUENCE, "all threads together"))?;
        for track in 1..=self.threads {
            write!(out, ",\n{}", name("thread_name", track, &format!("thread {track}")))?;
        }
        // Viewers nest an event in the one before it that has not ended.
        let mut events: Vec<_> = self.events.iter().collect();
        events.sort_by_key(|event| (event.start, Reverse(event.end), event.category));
        for event in events {
            write!(out, ",\n{}", serde_json::to_string(&event.line())?)?;
        }
        writeln!(out, "\n]")
    }
}

impl Event {
    fn line(&self) -> Line<'_> {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        Line {
            name: &self.name,
            cat: self.category,
            ph: "X",
            ts: microseconds(self.start),
            dur: microseconds(self.end.saturating_sub(self.start)),
            pid: PROCESS,
            tid: self.track,
            args: &self.args,
        }
    }
}

#[cfg(test)]
mod tests {
    use model_core::profile::Stage;

    use super::*;

    #[test]
    fn a_step_has_its_layers_and_they_have_their_stages() {
        let stretch = |stage, layer, thread, start, end| Stretch { stage, layer, thread, start, end };
        let mut trace = Trace::default();
        trace.span("run", (1_000, 9_500));
        let stretches = [
            stretch(Stage::Embedding, None, None, 2_000, 3_000),
            stretch(Stage::Scores, Some(0), Some(1), 3_100, 3_900),
            stretch(Stage::Attention, Some(0), None, 3_000, 4_000),
            stretch(Stage::Down, Some(0), None, 4_000, 5_000),
            stretch(Stage::Cursor, None, None, 5_000, 5_500),
        ];
        trace.step("prompt", (2_000, 5_500), &stretches);
        let mut text = Vec::new();
        trace.write(&mut text).unwrap();
        let events: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let shown: Vec<_> = events
            .iter()
            .map(|event| {
                let times = [&event["ts"], &event["dur"]].map(|time| time.as_f64().unwrap_or(-1.0));
                (event["name"].as_str().unwrap(), event["tid"].as_u64().unwrap(), times)
            })
            .collect();
        let expected = [
            ("process_name", 0, [-1.0; 2]),
            ("thread_name", 0, [-1.0; 2]),
            ("thread_name", 1, [-1.0; 2]),
            ("thread_name", 2, [-1.0; 2]),
            ("run", 0, [1.0, 8.5]),
            ("prompt", 0, [2.0, 3.5]),
            ("embedding", 0, [2.0, 1.0]),
            ("layer 0", 0, [3.0, 2.0]),
            ("attention: rest", 0, [3.0, 1.0]),
            ("attention: scores", 2, [3.1, 0.8]),
            ("product: down", 0, [4.0, 1.0]),
            ("cursor and budget", 0, [5.0, 0.5]),
        ];
        assert_eq!(shown, expected);
        assert_eq!((&events[7]["cat"], &events[7]["args"]["layer"]), (&json!("layer"), &json!(0)));
    }
}
