//! Maps of random shape, whose item processes and programs are killed at random. The results must be those of a plain
//! loop.
//!
//! `CLOUDKNOT_STRESS_SEED` repeats the shapes of an earlier run; `CLOUDKNOT_STRESS_SECONDS` makes the test longer.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cloudknot_runtime::contract::ENV_TRACE;
use cloudknot_tests::random::{Random, seed};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::trial::{Behavior, Fact, Spec, Trial, facts, json, kill, run_of, values};
use rustix::process::Signal;

/// Maximum number of times that the test kills the process of a program that traces types. After more than five kills, the
/// program takes them for the work of a type, as when one uses up the memory.
const MAX_TRACE_KILLS: u32 = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn log(line: &str) {
    // Printed even if the test passes: only the seed allows it to be repeated.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn random_kills_do_not_corrupt_results() {
    if !cfg!(target_os = "linux") {
        return skipped("killing item processes at random", "item processes are found through /proc");
    }
    let seed = seed();
    let end = Instant::now() + Duration::from_secs(setting("CLOUDKNOT_STRESS_SECONDS", 20));
    let mut random = Random::new(seed);
    let (mut maps, mut items, mut programs) = (0, 0, 0);
    while Instant::now() < end {
        let map = Map::random(&mut random);
        log(&format!("CLOUDKNOT_STRESS_SEED={seed}, map {maps}: {}", map.shape()));
        programs += map.run(&mut random);
        maps += 1;
        items += map.expected.len();
    }
    log(&format!("{maps} maps of {items} items by {programs} programs"));
}

struct Map {
    trial: Trial,
    spec: Spec,
    expected: Vec<u64>,
    /// Time within which programs are killed. On average, item processes are killed as often.
    kills_ms: u64,
    /// Number of times that the process that traces types was killed, since the current program was started.
    trace_kills: AtomicU32,
}

impl Map {
    fn random(random: &mut Random) -> Self {
        let items = [1, 40, 150, 600][usize::try_from(random.below(4)).unwrap()];
        let items = items + random.below(items);
        let longest = [1, 4, 40][usize::try_from(random.below(3)).unwrap()];
        let mut inputs = Vec::new();
        let mut expected = Vec::new();
        for item in 0..items {
            let input = match random.below(4) {
                0 => Behavior::Sleep(random.below(longest), item),
                // Inputs of all lengths, so that an input of the wrong item has the wrong length as well.
                1 => Behavior::Print(
                    String::new(),
                    "x".repeat(usize::try_from(random.below(300)).unwrap()),
                    Box::new(Behavior::Sleep(0, item)),
                ),
                _ => Behavior::Double(item),
            };
            expected.push(if matches!(input, Behavior::Double(_)) { 2 * item } else { item });
            inputs.push(input);
        }
        let chunk = (random.below(3) > 0).then(|| 1 + random.below(items.max(1)));
        let parallel = Some(1 + u32::try_from(random.below(4)).unwrap());
        // Many retries, because each kill uses up an attempt of an item.
        let spec = Spec { chunk, parallel, retries: Some(1_000), ..Spec::of(inputs) };
        let kills_ms = 30 + random.below(200);
        Self { trial: Trial::new(crate::PROGRAM), spec, expected, kills_ms, trace_kills: AtomicU32::new(0) }
    }

    fn shape(&self) -> String {
        let Spec { inputs, chunk, parallel, .. } = &self.spec;
        format!("{} items, chunk {chunk:?}, parallel {parallel:?}, kills within {} ms", inputs.len(), self.kills_ms)
    }

    /// Starts programs until one reaches the end of the run, and returns their number.
    fn run(&self, random: &mut Random) -> u32 {
        let stop = AtomicBool::new(false);
        let mut victims = Random::new(random.next());
        std::thread::scope(|scope| {
            scope.spawn(|| self.kill_item_processes(&stop, &mut victims));
            // Set even if a check fails; otherwise the scope would wait for the thread forever.
            let _stop = StopAtEnd(&stop);
            let spec = json(&self.spec);
            let mut run: Option<String> = None;
            for program in 1.. {
                let attached = run.clone();
                let arguments = attached.as_deref().map_or(["stream", &spec], |run| ["attach-stream", run]);
                // Later programs have more time, so that the run comes to an end.
                let lifetime = self.kills_ms + random.below(self.kills_ms * u64::from(program));
                let Some(facts) = self.program(&arguments, Duration::from_millis(lifetime), &mut run) else { continue };
                self.check(&facts, run.as_deref().expect("a program that ends has printed the ID of its run"));
                return program;
            }
            unreachable!("programs are started until one ends");
        })
    }

    /// Returns the facts that a program printed, unless it was killed before its end.
    fn program(&self, arguments: &[&str], lifetime: Duration, run: &mut Option<String>) -> Option<Vec<Fact>> {
        self.trace_kills.store(0, Ordering::Relaxed);
        let mut running = self.trial.start(arguments);
        let began = Instant::now();
        while running.is_running() {
            if began.elapsed() > lifetime {
                *run = run.take().or_else(|| run_of(&running.facts()));
                kill(running.pid(), Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = running.wait_with_output();
        let facts = facts(&output.stdout);
        *run = run.take().or_else(|| run_of(&facts));
        // The program may have ended just before it was killed.
        if !output.status.success() {
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(facts)
    }

    fn kill_item_processes(&self, stop: &AtomicBool, random: &mut Random) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(random.below(2 * self.kills_ms)));
            let processes: Vec<_> = self.trial.processes().into_iter().filter(|&pid| is_item_process(pid)).collect();
            if processes.is_empty() {
                continue;
            }
            let victim = processes[usize::try_from(random.below(processes.len() as u64)).unwrap()];
            // Most processes that are still starting are spared: ten failed starts in a row are a failure.
            let is_chosen = has_started(victim) || random.below(4) == 0;
            if is_chosen && (!traces_types(victim) || self.may_kill_tracing()) {
                kill(victim, Signal::KILL);
            }
        }
    }

    /// Counts a kill of the process that traces types; `false` if the program has had enough of them.
    fn may_kill_tracing(&self) -> bool {
        self.trace_kills.fetch_add(1, Ordering::Relaxed) < MAX_TRACE_KILLS
    }

    fn check(&self, facts: &[Fact], run: &str) {
        let failed: Vec<_> = facts.iter().filter(|fact| matches!(fact, Fact::Failed(..))).collect();
        assert!(failed.is_empty(), "{failed:?}");
        // `values` rejects an item that is reported twice.
        let values = values(facts);
        let expected = self.expected.iter().copied().enumerate().collect();
        assert_eq!(values, expected);
        // The store contains each value once.
        let all: Vec<u64> = (0..self.expected.len() as u64).collect();
        assert_eq!(self.trial.items_with_values(run), all);
    }
}

/// Returns whether this is an item process, its keeper, or a process that traces types. These lead their own process group;
/// programs of this test are in the group of the test.
fn is_item_process(pid: i32) -> bool {
    let group = rustix::process::Pid::from_raw(pid).and_then(|pid| rustix::process::getpgid(Some(pid)).ok());
    group.is_some_and(|group| group.as_raw_nonzero().get() == pid)
}

/// Returns whether an item process has started. Just before it reports that it is ready, it sets its `oom_score_adj`.
fn has_started(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).is_ok_and(|score| score.trim() == "1000")
}

/// Returns whether this process traces types.
fn traces_types(pid: i32) -> bool {
    let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    variables.split(|&byte| byte == 0).any(|variable| variable.starts_with(format!("{ENV_TRACE}=").as_bytes()))
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
